"""python -m train.restore --workdir DIR --factor 2: small images, enlarged."""

from pathlib import Path
from typing import Literal

import numpy as np

from .cli.bounds import Count, Seed, Several, Weight, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path
from .cli.sampler import GuidanceOptions, SolverOptions


@group()
class Restore(RunToOpen, SolverOptions, GuidanceOptions):
    """Draws of p(x | its small version): super-resolution by a model of x alone.

    A row: the test image, its small version enlarged, restorations.
    """

    out: Path | None = None
    """The picture (.png); by default restored.png in the run's folder."""
    factor: Several = 2
    """Pixels of the small version are means of so many squared."""
    noise: Weight = 0.0
    """Standard deviation of noise on the small version, of pixels in [-1, 1]."""
    method: Literal["projection", "posterior"] = "projection"
    """Each x̂ is made to fit, or the score is guided by a gradient of the network."""
    num: Count = 6
    """Restorations of each image."""
    rows: Count = 8
    """Test images, one a row."""
    seed: Seed = 0
    """Seed of the choice of test images and of all noise."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def restore(options: Restore) -> None:
    """Draw, write, say where."""
    import jax
    import jax.numpy as jnp

    from gengen.diffusion.operators import Average

    from .measure.outlier_sets import subset
    from .progress import progress
    from .run.sampler import as_keywords, calls_in_words, given_keywords
    from .run.workdir import open_workdir

    check_numbers(options)
    out = picture_path(options, "restored.png")
    given = given_keywords(options)
    trained = open_workdir(options.workdir, options.step)
    trained.record.data.images_only("train.restore")
    model, shrink = refuse_unguidable(trained.model), Average(options.factor)
    sampler = as_keywords(model, given).get("sampler", model.sampler)
    dataset = trained.dataset("test", options.data_dir)
    batch = subset(dataset, options.rows, options.seed)
    key_noise, key = jax.random.split(jax.random.key(options.seed))
    x = model.space.read(batch)
    small = shrink(x)
    small = small + options.noise * jax.random.normal(key_noise, small.shape)
    own = model.condition.read(batch)
    own = {k: jnp.repeat(v, options.num, axis=0) for k, v in own.items()}
    calls = model.nfe(fitted(sampler, shrink, small, options))
    print(f"cost: {len(x) * options.num} images, {calls_in_words(calls)} each")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work

    @jax.jit
    def drawn(params, state, key, small):
        y = jnp.repeat(small, options.num, axis=0)
        fit = fitted(sampler, shrink, y, options)
        return model.sample(params, state, key, len(y), sampler=fit, **own)

    with progress("images", 1) as advance:
        found = np.asarray(drawn(trained.params, trained.state, key, small))
        advance(1)
    write(out, trained, batch, (x, small, found), options)
    error = jnp.sqrt(jnp.mean((shrink(found) - jnp.repeat(small, options.num, 0)) ** 2))
    print(f"root mean square of what the restorations, made small, miss: {error:.3f}")
    print(f"a row: the image, its small version, restorations: {out}")


def refuse_unguidable(model):
    """The model; BadInput for one without a sampler to guide."""
    from gengen.errors import BadInput
    from gengen.models.diffusion import Diffusion

    if isinstance(model, Diffusion):
        return model
    raise BadInput(
        f"a {type(model).__name__} has no sampler to guide: take a diffusion model, "
        "such as flow"
    )


def fitted(sampler, shrink, y, options: Restore):
    """The sampler, guided to images whose small versions are y."""
    from gengen.diffusion.inverse import METHODS

    return sampler.replace(guides=(METHODS[options.method](shrink, y, options.noise),))


def write(out: Path, trained, batch, images: tuple, options: Restore) -> None:
    """The picture of (test images, their small versions, restorations)."""
    from gengen.images import require_finite

    from .run.labels import names_of
    from .run.pictures import save_grid, to_uint8

    x, small, found = images
    require_finite(found, "restoration")
    enlarged = small.repeat(options.factor, axis=1).repeat(options.factor, axis=2)
    found = found.reshape(len(x), options.num, *x.shape[1:])
    image = np.concatenate([x[:, None], enlarged[:, None], found], axis=1)
    spec = trained.record.data
    noise = f", with noise of {options.noise:g}" if options.noise else ""
    caption = (
        f"Test images of {spec.name}, their versions smaller by {options.factor}"
        f"{noise}, and {options.num} draws given these by the "
        f"{trained.record.experiment} of step {trained.step} ({options.method})."
    )
    heads, names = (
        ("image", "small", "restorations"),
        names_of(batch.get("label"), spec),
    )
    flat = to_uint8(image.reshape(-1, *x.shape[1:]))
    save_grid(out, flat, options.num + 2, names, column_names=heads, caption=caption)


def main() -> None:
    """The command line."""
    run_command(lambda: restore(parse(Restore, "restore")))


if __name__ == "__main__":
    main()
