"""python -m train.restore --workdir DIR --factor 2: small images, enlarged."""

from pathlib import Path
from typing import Literal

import numpy as np

from .cli.bounds import Count, Seed, Several, Weight, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuidanceOptions, SolverOptions


@group()
class Restore(RunToOpen, SolverOptions, GuidanceOptions):
    """Draws of p(x | its small version): super-resolution by a model of x alone.

    A row: the test image, its small version enlarged, restorations.
    """

    out: Path = Path("restored.png")
    """The picture (.png)."""
    factor: Several = 2
    """Pixels of the small version are means of so many squared."""
    noise: Weight = 0.0
    """Standard deviation of noise on the small version, of pixels in [-1, 1]."""
    method: Literal["projection", "posterior"] = "projection"
    """Each x̂ is made to fit, or the score is guided by a gradient of the network."""
    num: Count = 6
    """Restorations of an image."""
    rows: Count = 8
    """Test images."""
    seed: Seed = 0
    """Seed of the choice of test images and of all noise."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def restore(options: Restore) -> None:
    """Draw, write, say where."""
    import jax
    import jax.numpy as jnp

    from gengen.diffusion.inverse import METHODS
    from gengen.diffusion.operators import Average
    from gengen.errors import BadInput
    from gengen.models.diffusion import Diffusion

    from .cli.options import check_png
    from .measure.outlier_sets import subset
    from .run.pictures import save_grid, to_uint8
    from .run.sampler import as_keywords, calls_in_words, given_keywords
    from .run.workdir import open_workdir

    given = given_keywords(options)
    check_numbers(options)
    check_png(options.out)
    trained = open_workdir(options.workdir, options.step)
    trained.record.data.images_only("train.restore")
    model, shrink = trained.model, Average(options.factor)
    if not isinstance(model, Diffusion):
        raise BadInput(
            f"a {type(model).__name__} has no sampler to guide: take a diffusion "
            "model, such as flow"
        )
    sampler = as_keywords(model, given).get("sampler", model.sampler)
    batch = subset(
        trained.dataset("test", options.data_dir), options.rows, options.seed
    )
    key_noise, key = jax.random.split(jax.random.key(options.seed))
    x = model.space.read(batch)
    small = shrink(x)
    small = small + options.noise * jax.random.normal(key_noise, small.shape)
    own = model.condition.read(batch)
    own = {k: jnp.repeat(v, options.num, axis=0) for k, v in own.items()}

    def guided(y):
        guide = METHODS[options.method](shrink, y, options.noise)
        return sampler.replace(guides=(guide,))

    calls = model.nfe(guided(small))
    print(f"cost: {len(x) * options.num} images, {calls_in_words(calls)} each")
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before the work

    @jax.jit
    def drawn(params, state, key, small):
        y = jnp.repeat(small, options.num, axis=0)
        return model.sample(params, state, key, len(y), sampler=guided(y), **own)

    found = drawn(trained.params, trained.state, key, small)
    error = jnp.sqrt(jnp.mean((shrink(found) - jnp.repeat(small, options.num, 0)) ** 2))
    enlarged = small.repeat(options.factor, axis=1).repeat(options.factor, axis=2)
    found = found.reshape(len(x), options.num, *x.shape[1:])
    image = np.concatenate([x[:, None], enlarged[:, None], found], axis=1)
    save_grid(options.out, to_uint8(image.reshape(-1, *x.shape[1:])), options.num + 2)
    print(f"root mean square of what the restorations, made small, miss: {error:.3f}")
    print(f"a row: the image, its small version, restorations: {options.out}")


def main() -> None:
    """The command line."""
    run_command(lambda: restore(parse(Restore, "restore")))


if __name__ == "__main__":
    main()
