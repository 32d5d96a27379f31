"""python -m train.interpolate --workdir DIR --out FILE.png: between two latents."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from gengen.errors import BadInput

from .cli.bounds import Count, Seed, Several, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path


@group()
class Interpolate(RunToOpen):
    """Images along a path between two latents, one pair a row.

    The path goes between two draws of the prior, or between the codes of two test
    images, which then stand at the ends of the row. Ends share their class, if any.
    """

    out: Path | None = None
    """The picture (.png); by default interpolation.png in the run's folder."""
    num: Several = 9
    """Images along each path, its ends included."""
    rows: Annotated[Count, tyro.conf.arg(aliases=["--pairs"])] = 8
    """Paths, one a row."""
    path: Literal["spherical", "linear"] = "spherical"
    """The great circle, which keeps the length of latents, or the straight line."""
    between: Literal["noise", "data"] = "noise"
    """Two latents of the prior, or the codes of two test images."""
    label: str | None = None
    """The class of a conditional model, by its name or its number; by default the
    classes in turn."""
    caption: str | None = None
    """What all images show, of a run on captions."""
    seed: Seed = 0
    """Seed of the latents, or of the choice of test images."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def interpolate(options: Interpolate) -> None:
    """Draw, write, say where."""
    import jax

    from gengen.tasks import latents, require
    from gengen.types import HasLatents

    from .progress import progress
    from .run.asked import asked
    from .run.pictures import to_uint8
    from .run.sampler import calls_in_words
    from .run.workdir import open_workdir

    check_numbers(options)
    out = picture_path(options, "interpolation.png")
    trained = open_workdir(options.workdir, options.step)
    model, weights = trained.model, (trained.params, trained.state)
    require(model, HasLatents, "take a model with latents, such as a VAE or a GAN")
    given = asked(trained, options.rows, options.label, options.caption)
    images, ends, known = ends_of(trained, given, options)
    num = options.num * options.rows
    print(f"cost: {num} images, {calls_in_words(model.nfe(), num)}")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    between = partial(latents.interpolate, model, num=options.num)
    path = getattr(latents, options.path)
    between = jax.jit(partial(between, path=path, **known))
    with progress("images", 1) as advance:
        x = to_uint8(between(*weights, *ends, **given))  # [rows, num, H, W, C]
        advance(1)
    if images is not None:
        first, last = (as_uint8(image, trained)[:, None] for image in images)
        gap = np.concatenate([x[:, :1] - 1.0 * first, x[:, -1:] - 1.0 * last])
        error = np.sqrt(np.mean(gap**2)) / 127.5
        print(f"reconstruction error: {error:.3f} root mean square")
        x = np.concatenate([first, x, last], axis=1)
    between = write(out, x, trained, given, options)
    print(f"a row: {between}: {out}")


def ends_of(trained, given: dict, options: Interpolate) -> tuple:
    """(the test images at the ends or None, their latents, `backwards`)."""
    import jax

    if options.between == "data":
        images = image_pairs(trained, given, options)  # [2, rows, H, W, C]
        return images, encoded(trained, images, given), backwards(trained.model)
    keys = jax.random.split(jax.random.key(options.seed), 2 * options.rows)
    z = trained.model.sample_latent(trained.params, trained.state, keys)
    return None, z.reshape(2, options.rows, *z.shape[1:]), {}


def write(out: Path, x, trained, given: dict, options: Interpolate) -> str:
    """The picture; what a row is, in words."""
    from .run.labels import names_of
    from .run.pictures import save_grid

    spec, ends = trained.record.data, "two latents of the prior"
    heads = [f"{share:.2g}" for share in np.linspace(0, 1, options.num)]
    if options.between == "data":
        ends = "the codes of two test images, which stand at its ends"
        heads = ["image", *heads, "image"]
    between = f"the {options.path} path between {ends}"
    caption = (
        f"Each row: {between}, and how far along it is, by the "
        f"{trained.record.experiment} of step {trained.step} on {spec.name}."
    )
    names = names_of(next(iter(given.values()), None), spec)
    flat = x.reshape(-1, *x.shape[2:])
    save_grid(out, flat, x.shape[1], names, column_names=heads, caption=caption)
    return between


def image_pairs(trained, given: dict, options) -> np.ndarray:
    """Test images [2, rows, H, W, C] of the given classes; no pair of one image."""
    from gengen.tasks import require
    from gengen.types import Inverts

    from .measure.outlier_sets import subset

    remedy = "it gives images no codes, so take --between noise"
    require(trained.model, Inverts, remedy)
    dataset = trained.dataset("test", options.data_dir)
    if not given:
        image = subset(dataset, 2 * options.rows, options.seed)["image"]
        if len(image) < 2 * options.rows:
            raise BadInput(f"--rows {options.rows}: there are {len(image)} test images")
        return image.reshape(2, options.rows, *dataset.spec.shape)
    known = subset(dataset, 10_000, options.seed)
    rng = np.random.default_rng(options.seed)
    (name, labels), *_ = given.items()
    places = [np.flatnonzero(known[name] == label) for label in labels]
    if small := [k for k, p in zip(labels, places, strict=True) if len(p) < 2]:
        raise BadInput(f"--label {small[0]}: fewer than two test images have it")
    chosen = np.stack([rng.choice(p, 2, replace=False) for p in places], axis=1)
    return known["image"][chosen]


def encoded(trained, images: np.ndarray, given: dict) -> list:
    """Latents of both sets of images: an encoder's means, or noise by the ODE."""
    import jax

    model, weights = trained.model, (trained.params, trained.state)
    to_latent = jax.jit(partial(model.to_latent, **given, **backwards(model)))
    return [to_latent(*weights, model.space.to_model(image)) for image in images]


def backwards(model) -> dict:
    """What `from_latent` must be told to bring back what `to_latent` took away.

    No guidance, and DDIM in the place of a solver that draws noise.
    """
    from gengen.diffusion.solvers import DDIM

    if not hasattr(model, "sampler"):
        return {}
    sampler = model.sampler.replace(scale=1.0)
    known = sampler.solver.traits.deterministic
    return {"sampler": sampler if known else sampler.replace(solver=DDIM())}


def as_uint8(image: np.ndarray, trained) -> np.ndarray:
    """Levels as a picture's bytes."""
    from gengen.images import to_unit

    from .run.pictures import to_uint8

    return to_uint8(to_unit(image, trained.record.data.levels))


def main() -> None:
    """The command line."""
    run_command(lambda: interpolate(parse(Interpolate, "interpolate")))


if __name__ == "__main__":
    main()
