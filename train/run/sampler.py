"""Samples of any model, in batches of one compiled program."""

import dataclasses
import inspect
from collections.abc import Iterator
from functools import partial

import numpy as np

from gengen.conditions import Nothing, labels_of
from gengen.errors import BadInput
from gengen.images import require_finite
from gengen.models.combinators.latent import Coded, Latent
from gengen.types import HasCodes, Matches, OnlyReconstructs

from ..cli.doors import command
from ..cli.names import GRIDS, SOLVERS
from .shared import shared_jit
from .windows import Sliding

COLUMNS = 10

# The sampler's keywords that a program may have as options.
KEYWORDS = ("guidance_scale", "steps", "solver", "grid", "draw")
KEYWORDS += ("interval", "rescale", "threshold")  # of guidance
KEYWORDS += ("temperature", "top_k", "top_p")  # of autoregressive models
KEYWORDS += ("truncation",)  # of a StyleGAN
COMPLETION = ("particles", "method", "repeats")  # of `complete`

# Options whose name in the library is another.
OF_THE_LIBRARY = {"guidance_scale": "scale", "draw": "sample_pixels"}


def sample_condition(model):
    """What a sample of this model can be asked for: its own condition, and guides'."""
    ask = getattr(model, "sampling_condition", None)
    return ask() if ask else getattr(model, "condition", Nothing())


def sample_classes(model) -> int:
    """How many classes a sample of this model can be asked for; 0 for none."""
    labels = labels_of(sample_condition(model))
    return labels.num if labels else 0


def given_classes(model, num: int, label: int | None = None) -> dict:
    """{"label": `class_labels`}, or {} for a model without classes."""
    labels = class_labels(model, num, label)
    if labels is None:
        return {}
    return {labels_of(sample_condition(model)).key: labels}


def class_labels(model, num: int, label: int | None = None) -> np.ndarray | None:
    """int32 [num]: `label` for all, or the classes in turn; None if unconditional."""
    classes = sample_classes(model)
    if label is None:
        return np.arange(num, dtype=np.int32) % classes if classes else None
    return np.full(num, label, np.int32)


def given_keywords(options, names: tuple[str, ...] = KEYWORDS) -> dict:
    """{keyword: value} of the sampler's keywords that the options give."""
    values = {name: getattr(options, name, None) for name in names}
    return {k: v for k, v in values.items() if v is not None and v is not False}


def as_values(given: dict) -> dict:
    """{the library's name: value}: solvers and grids by their names become values.

    A classifier's scale is its guide's, and is left out.
    """
    named = {"solver": SOLVERS, "grid": GRIDS}
    given = {k: v for k, v in given.items() if k != "classifier_scale"}
    given = {k: named[k][v]() if k in named else v for k, v in given.items()}
    return {OF_THE_LIBRARY.get(name, name): value for name, value in given.items()}


def drawn_by(model):
    """The model whose sampler draws: of a second stage, that of the latents."""
    return model.model if isinstance(model, Latent | Coded) else model


def default_sampler(model):
    """The value of a model's `sampler` keyword; None if it has none."""
    model = drawn_by(model)
    if hasattr(model, "sampler"):
        return model.sampler
    if not hasattr(model, "sample"):
        raise BadInput(f"a {type(model).__name__} has no method sample: give it one")
    taken = inspect.signature(model.sample).parameters.get("sampler")
    return taken.default if taken else None


def _fields(value) -> set[str]:
    return {field.name for field in dataclasses.fields(value)} if value else set()


def keywords_of(model) -> set[str]:
    """The options of this model's sampler and of its completions."""
    sampler = default_sampler(model)
    guidance = getattr(sampler, "guidance", None)
    names = _fields(sampler) | _fields(guidance)
    for method in ("sample", "complete"):
        for each in (model, drawn_by(model)):
            if hasattr(each, method):
                names |= inspect.signature(getattr(each, method)).parameters.keys()
    return names | {o for o, name in OF_THE_LIBRARY.items() if name in names}


def as_keywords(model, given: dict) -> dict:
    """Options of a sampler as the keywords of `model.sample` and `model.complete`.

    What is a field of the sampler, or of its guidance, goes into `sampler`.
    """
    check_options(model, given)
    sampler, values = default_sampler(model), as_values(given)
    inner = _fields(sampler) | _fields(getattr(sampler, "guidance", None))
    own = {name: values.pop(name) for name in inner & values.keys()}
    if own:
        change = getattr(sampler, "replace", partial(dataclasses.replace, sampler))
        values["sampler"] = change(**own)
    return values


def calls_of(model, keywords: dict) -> int | None:
    """Network calls per sample under these keywords."""
    takes = inspect.signature(model.nfe).parameters
    return model.nfe(**{k: v for k, v in keywords.items() if k in takes})


def calls_in_words(calls: int | None, samples: int = 1) -> str:
    """ "1,234 network evaluations", of an adaptive solver as many as it takes."""
    if calls is None:
        return "as many network evaluations as the solver decides on"
    return f"{samples * calls:,} network evaluations"


def check_options(model, options: dict) -> None:
    """BadInput for an option that this model's sampler does not have."""
    for name, value in options.items():
        if name not in keywords_of(model) | {"classifier_scale"}:
            option = name.replace("_", "-")
            raise BadInput(
                f"--{option} {value}: a {type(model).__name__}'s sampler has no such "
                "option; leave it out"
            )


class Sampler:
    """Samples of one model, `batch_size` at a time, by one compiled program.

    Call it with (params, state, key, num, given): x [num, ...]. given: the condition by
    name, one value per sample. Sample i is number i of the key whatever the batch size;
    the last batch is padded. BadInput names the first sample that is not finite.

    Args:
        model: what draws them.
        batch_size: samples at a time.
        prompt: the bytes with which every sample of text begins, if any.
        length: bytes of a sample of text; by default the model's window.
        few: whether so few are drawn that the time to compile counts more.
        **options: the sampler's, by their names on the command line.
    """

    def __init__(
        self,
        model,
        batch_size: int,
        prompt: bytes = b"",
        length: int | None = None,
        few: bool = False,
        **options,
    ):
        refuse_undrawn(model)
        keywords = as_keywords(model, options)
        self.batch_size, self.length = batch_size, length
        # A model of one's own need not say its space, which only a prompt needs.
        shape = model.space.shape if hasattr(model, "space") else (0,)
        check_prompt(prompt, length or shape[0])
        self._begun = np.frombuffer(prompt, np.uint8).astype(np.int32)
        self._sliding = None
        if length and max(length, len(prompt)) > shape[0]:
            self._sliding = Sliding(model, batch_size, length, **keywords)
        values = model, batch_size, tuple(keywords.items())
        if prompt:
            self._draw = shared_jit(continued, *values, prompt, shape[0], quickly=few)
        else:
            self._draw = shared_jit(drawn, *values, quickly=few)

    def __call__(self, params, state, key, num: int, given=None) -> np.ndarray:
        return np.concatenate(list(self.batches(params, state, key, num, given)))

    def batches(
        self, params, state, key, num: int, given=None, advance=lambda done: None
    ) -> Iterator[np.ndarray]:
        """The samples in parts, each drawn when it is asked for.

        advance: is told how many there are, after each part.
        """
        for first in range(0, num, self.batch_size):
            x = self.batch(params, state, key, first, given)[: num - first]
            require_finite(x, start=first)
            advance(first + len(x))
            yield x

    def batch(self, params, state, key, first: int, given=None) -> np.ndarray:
        """Samples first … first + batch_size - 1; given is that of all samples."""

        def rows(value):
            here = value[first : first + self.batch_size]
            more = [(0, self.batch_size - len(here)), *[(0, 0)] * (here.ndim - 1)]
            return np.pad(here, more, mode="edge")

        given = {name: rows(value) for name, value in (given or {}).items()}
        arguments = params, state, key, first
        if self._sliding and len(self._begun) > self._sliding.window:
            x = np.tile(self._begun, (self.batch_size, 1))
        else:
            x = np.asarray(self._draw(*arguments, given))
        if self._sliding:
            return self._sliding(*arguments, x, given)
        return x if self.length is None else x[:, : self.length]


def drawn(model, num, keywords, params, state, key, first, given):
    """Samples first … first + num - 1; keywords: pairs."""
    how = {"start_index": first, **dict(keywords)}
    return model.sample(params, state, key, num, **given, **how)


def continued(model, num, keywords, prompt, length, params, state, key, first, given):
    """The same of text, each after the bytes of the prompt."""
    how = {"start_index": first, **dict(keywords)}
    begun = np.frombuffer(prompt.ljust(length, b"\0"), np.uint8).astype(np.int32)
    batch = {"tokens": np.tile(begun, (num, 1)), **given}
    observed = np.arange(length) < len(prompt)
    return model.complete(params, state, key, batch, observed, **how).x


def refuse_undrawn(model) -> None:
    """BadInput, with the remedy, for a CLIP, and for codes that nobody draws yet."""
    if isinstance(model, OnlyReconstructs):
        kind = "prior" if isinstance(model, HasCodes) else "flow"
        raise BadInput(
            f"this {type(model).__name__} has no p(z) to draw from: train a model of "
            f"its codes, {command(kind)} --first-stage WORKDIR, and sample that run"
        )
    if isinstance(model, Matches):
        model.sample(None, None, None, 1)  # says what it is for


def check_prompt(prompt: bytes, length: int) -> None:
    """BadInput for a prompt that is longer than the sample."""
    if len(prompt) > length:
        raise BadInput(
            f"--prompt has {len(prompt)} bytes, and a sample of this run has {length}: "
            "take a shorter one, or a larger --length"
        )
