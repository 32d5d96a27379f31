"""python -m train.styles --workdir DIR --show mixing: a StyleGAN's space of styles."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from gengen.errors import BadInput

from .cli.bounds import Count, Index, NonEmpty, Positive, Seed, Steps, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path
from .cli.sampler import Time


@group()
class Styles(RunToOpen):
    """Images by their styles: drawn towards the mean, mixed, or found by descent.

    Truncation: a latent a row, from the mean style to its own. Mixing: an image of the
    coarse styles of its row and the fine ones of its column. Projection: test images
    and what the generator comes nearest to, over all styles.
    """

    show: Literal["truncation", "mixing", "projection"] = "truncation"
    """What to draw."""
    out: Path | None = None
    """The picture (.png); by default its kind in the run's folder."""
    rows: Count = 6
    """Latents or test images, one a row; as many columns of a mixture."""
    truncations: Annotated[tuple[Time, ...], NonEmpty()] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Shares of the way from the mean style to a latent's own (truncation)."""
    layer: Index | None = None
    """The first layer that takes the fine styles (mixing); by default the middle."""
    descent_steps: Steps = 300
    """Steps of Adam (projection)."""
    rate: Positive = 0.05
    """Learning rate of Adam (projection)."""
    label: str | None = None
    """The class of every latent of a conditional model, by its name or its number; by
    default the classes in turn."""
    seed: Seed = 0
    """Seed of the latents, or of the choice of test images."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def styles(options: Styles) -> None:
    """Draw, write, say where."""
    from gengen.tasks import require
    from gengen.types import HasStyles

    from .progress import progress
    from .run.workdir import open_workdir

    check_numbers(options)
    out = picture_path(options, f"{options.show}.png")
    trained = open_workdir(options.workdir, options.step)
    require(trained.model, HasStyles, "take a stylegan2 run")
    draw = {"truncation": truncation, "mixing": mixing, "projection": projection}
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    with progress("images", 1) as advance:
        x, heads, words = draw[options.show](trained, options)
        write(out, trained, x, heads, words)
        advance(1)
    print(f"a row: {words}: {out}")


def latents(trained, num: int, options: Styles) -> tuple:
    """(z [num, latent], the condition by name)."""
    import jax

    from .run.labels import asked_label
    from .run.sampler import given_classes

    keys = jax.random.split(jax.random.key(options.seed), num)
    z = trained.model.sample_latent(trained.params, trained.state, keys)
    given = given_classes(trained.model, num, asked_label(trained, options.label))
    return z, given


def truncation(trained, options: Styles) -> tuple:
    """Images [rows, truncations, …], names of columns, what a row is."""
    import jax

    from gengen.tasks.styles import truncated

    z, given = latents(trained, options.rows, options)
    psi = np.array(options.truncations, np.float32)
    program = jax.jit(truncated, static_argnums=0)
    x = program(trained.model, trained.params, trained.state, z, psi, **given)
    heads = [f"{value:g}" for value in psi]
    return x, heads, "a latent, from the mean style (0) to its own (1)"


def mixing(trained, options: Styles) -> tuple:
    """Images [1 + rows, 1 + rows, …]: fine latents above, coarse ones at the left."""
    import jax

    from gengen.tasks.styles import mixed

    model, weights = trained.model, (trained.params, trained.state)
    num, layers = options.rows, model.num_styles
    first = layers // 2 if options.layer is None else options.layer
    if first > layers:
        raise BadInput(
            f"--layer {first}: the generator has {layers} layers that take a style; "
            f"give 0 to {layers}"
        )
    z, given = latents(trained, 2 * num, options)
    w = model.styles(*weights, z, **given)
    program = jax.jit(mixed, static_argnums=(0, 5))
    inner = np.asarray(program(model, *weights, w[:num], w[num:], first))
    own = np.asarray(jax.jit(model.from_styles)(*weights, w))
    corner = np.full_like(own[:1], -0.25)
    top = np.concatenate([corner, own[num:]])[None]
    x = np.concatenate([top, np.concatenate([own[:num, None], inner], axis=1)])
    words = (
        f"layers 1 to {first} take the style of the image at the left, the other "
        f"{layers - first} that of the image above"
    )
    return x, (), words


def projection(trained, options: Styles) -> tuple:
    """Images [rows, 3, …]: the test image, the nearest one, the mean style's."""
    import jax

    from gengen.tasks.styles import projected

    from .measure.outlier_sets import subset

    model, weights = trained.model, (trained.params, trained.state)
    dataset = trained.dataset("test", options.data_dir)
    batch = subset(dataset, options.rows, options.seed)
    x = model.space.read(batch)
    print(f"cost: {len(x)} images, {options.descent_steps} steps of descent each")
    program = jax.jit(projected, static_argnums=(0, 4, 5))
    found = program(model, *weights, x, options.descent_steps, options.rate)
    error = np.sqrt(np.asarray(found.error)) / 2.0
    print(
        f"root mean square error, of pixels in [0, 1]: {error[0].mean():.3f} at the "
        f"mean style, {error[-1].mean():.3f} after {options.descent_steps} steps"
    )
    w = np.broadcast_to(model.mean_style(*weights), (1, *found.w.shape[1:]))
    mean = np.broadcast_to(model.from_styles(*weights, w), x.shape)
    heads = ("image", "nearest", "mean style")
    return np.stack([x, found.x, mean], axis=1), heads, "a test image, and the nearest"


def write(out: Path, trained, x, heads, words: str) -> None:
    """The picture of images [rows, columns, H, W, C]."""
    from .run.pictures import save_grid, to_uint8

    caption = (
        f"Each row: {words}; by the {trained.record.experiment} of step "
        f"{trained.step} on {trained.record.data.name}."
    )
    x = np.asarray(x)
    flat = to_uint8(np.clip(x.reshape(-1, *x.shape[2:]), -1.0, 1.0))
    save_grid(out, flat, x.shape[1], column_names=heads, caption=caption)


def main() -> None:
    """The command line."""
    run_command(lambda: styles(parse(Styles, "styles")))


if __name__ == "__main__":
    main()
