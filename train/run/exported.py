"""A run's sampler as one file that needs jax and nothing else: `jax.export`, in a zip.

    sampler      the program with the weights in it, as `jax.export` serialises it
    about.json   what it is, its arguments, the versions, the SHA-256 of `sampler`

A zip holds a checksum of each member and its index at the end, so `zipfile` refuses a
truncated file and a changed one. The program is that of one sample, mapped over the
samples' numbers: sample i depends on (seed, i) only, whatever is drawn beside it.
"""

import hashlib
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from gengen.errors import BadInput
from gengen.models.diffusion import Diffusion
from gengen.models.stylegan import StyleGAN

from ..cli import doors
from ..files import to_json, written_atomically
from .processes import first_line
from .sampler import (
    as_keywords,
    default_sampler,
    drawn_by,
    refuse_undrawn,
    sample_condition,
)

PROGRAM, ABOUT = "sampler", "about.json"
PLATFORMS = ("cpu", "cuda", "tpu")
# What the parsers of a zip and of JSON raise on other bytes.
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, LookupError, ValueError)
_DAMAGED += (TypeError, AttributeError, EOFError, OSError)


class Draw(NamedTuple):
    """A sampler of any number of rows, and what it is to be called with."""

    function: Any
    """(words, index, **given) -> x [B, *shape]."""
    given: dict[str, jax.ShapeDtypeStruct]
    """One row of each argument beside the seed and the samples' numbers."""


def sampler_of(model, params, state, options: dict | None = None) -> Draw:
    """`model.sample` as a function of arrays alone.

    Its arguments are the two words of a key, the samples' numbers [B], and by name, one
    value per sample: what the model is conditioned on, the scale of guidance (of a
    diffusion model that knows it, unless the options fix it) and a StyleGAN's
    truncation. What is no array is fixed: steps, solver, temperature, ….

    Args:
        model: what draws.
        params: its parameters.
        state: its other arrays.
        options: the sampler's, by their names on the command line.

    Raises:
        BadInput: for a model that draws nothing, and for an option that it has not.
    """
    refuse_undrawn(model)
    # Those of other runs are NumPy's, which no traced index takes.
    params, state = jax.tree.map(jnp.asarray, (params, state))
    options = options or {}
    how, condition = as_keywords(model, options), sample_condition(model)
    if "guidance_scale" not in options and (free := free_guidance(model, how)):
        how = {**how, "sampler": free}
        condition = drawn_by(model).sampling_condition(free)
    given = {
        name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
        for name, x in jax.eval_shape(lambda: condition.zeros(1)).items()
    }
    if isinstance(model, StyleGAN) and "truncation" not in options:
        given["truncation"] = jax.ShapeDtypeStruct((), jnp.float32)

    def draw(words, index, **given):
        key = jax.random.wrap_key_data(words)
        keywords = {name: given.pop(name) for name in ("truncation",) if name in given}

        def row(i, keywords, given):
            rows = {name: value[None] for name, value in given.items()}
            more = {**how, **keywords, **rows}
            return model.sample(params, state, key, 1, start_index=i, **more)[0]

        return jax.vmap(row)(index, keywords, given)

    return Draw(draw, given)


def free_guidance(model, how: dict):
    """The sampler whose guidance reads its scale per row; None where none is known."""
    if not isinstance(inner := drawn_by(model), Diffusion):
        return None
    sampler = how.get("sampler", default_sampler(model))
    try:
        free = sampler.replace(scale=None)
        inner.nfe(sampler=free)
    except BadInput:
        return None
    return free


def exported(draw: Draw, platforms: tuple[str, ...]) -> export.Exported:
    """The sampler, lowered for every platform and for any number of samples.

    Raises BadInput, with the reason in one line, for a program that cannot be.
    """
    (num,) = export.symbolic_shape("b")
    words = jax.ShapeDtypeStruct((2,), jnp.uint32)
    index = jax.ShapeDtypeStruct((num,), jnp.int32)
    given = {
        name: jax.ShapeDtypeStruct((num, *x.shape), x.dtype)
        for name, x in draw.given.items()
    }
    lower = export.export(jax.jit(draw.function), platforms=platforms)
    try:
        return lower(words, index, **given)
    except (ValueError, NotImplementedError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"this sampler cannot be exported for {', '.join(platforms)} "
            f"({first_line(error)}): take a --solver of fixed steps, or other "
            "--platforms"
        ) from error


def about(program: export.Exported, **more) -> dict[str, Any]:
    """What stands beside the program: versions, arguments, and what the caller adds."""
    positional, given = jax.tree.unflatten(program.in_tree, program.in_avals)
    arguments = dict(zip(("words", "index"), positional, strict=True)) | given
    return {
        "format": 1,
        "gengen": doors.version(),
        "jax": jax.__version__,
        "platforms": list(program.platforms),
        "arguments": {name: in_words(x) for name, x in arguments.items()},
        "returns": in_words(*program.out_avals),
        **more,
    }


def in_words(x) -> str:
    """The type and shape of an array: "int32[b]"."""
    return f"{x.dtype}[{', '.join(map(str, x.shape))}]"


def save(path: Path, program: export.Exported, said: dict[str, Any]) -> None:
    """Write the file, whole or not at all: the same program, the same bytes."""
    data = bytes(program.serialize())
    said = {**said, "sha256": hashlib.sha256(data).hexdigest()}
    members = {ABOUT: to_json(said, indent=2).encode(), PROGRAM: data}
    with (
        written_atomically(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, member in members.items():
            archive.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_DEFLATED)


def load(path: Path) -> tuple[dict[str, Any], export.Exported]:
    """(what it is, the program) of a file; BadInput for one that is damaged, or newer.

    Call the program with (words, index, **given).
    """
    file = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(file) as archive:
            said, data = json.loads(archive.read(ABOUT)), archive.read(PROGRAM)
        whole = said["sha256"] == hashlib.sha256(data).hexdigest()
        newer = version(said["jax"]) > version(jax.__version__)
    except _DAMAGED as error:
        raise BadInput(
            f"{path} is no exported sampler, or is truncated or damaged "
            f"({first_line(error)}): export it again, from its run"
        ) from error
    if not whole:
        raise BadInput(
            f"{path} is damaged: the SHA-256 of its program is not the one that it "
            "says; export it again, from its run"
        )
    if newer:
        raise BadInput(
            f"{path} was exported by jax {said['jax']}, and this is jax "
            f"{jax.__version__}, which need not read it: install that version, or "
            "export it again, from its run"
        )
    return said, export.deserialize(bytearray(data))


def version(text: str) -> tuple[int, ...]:
    """The numbers of a release, which are in order.

    >>> version("0.10.2") < version("0.11.0")
    True
    """
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())


# What an argument may be, in a script that draws 16 samples.
_EXAMPLES = {"label": "jnp.arange(16) % {classes}", "guidance": "jnp.full(16, 2.0)"}
_EXAMPLES |= {"truncation": "jnp.full(16, 0.7)"}


def example(path: Path, said: dict[str, Any]) -> list[str]:
    """A script of five lines that draws 16 samples; it imports jax and no gengen."""
    given = "".join(
        f", {name}={_EXAMPLES.get(name, zeros(kind)).format(**said)}"
        for name, kind in said["arguments"].items()
        if name not in ("words", "index")
    )
    return [
        "import zipfile, jax",
        "from jax import export, numpy as jnp",
        f"program = zipfile.ZipFile({str(path)!r}).read({PROGRAM!r})  # or BadZipFile",
        "words = jax.random.key_data(jax.random.key(0))  # the seed",
        "x = export.deserialize(bytearray(program)).call(words, jnp.arange(16)"
        f"{given})",
    ]


def zeros(kind: str) -> str:
    """16 rows of a type as `in_words` says it.

    >>> zeros("int32[b, 7]")
    "jnp.zeros((16, 7), 'int32')"
    """
    dtype, _, shape = kind.rstrip("]").partition("[")
    shape = (16, *map(int, shape.split(", ")[1:]))
    return f"jnp.zeros({shape}, {dtype!r})"
