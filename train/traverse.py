"""python -m train.traverse --workdir DIR --out FILE.png: what a latent coordinate does.

A VAE's coordinates are ordered by their KL(q(z_d|x) ‖ N(0, 1)), averaged over test
images: it is the bits about the image that the coordinate carries. One with none is
unused, and its row does not change.
"""

from functools import partial
from pathlib import Path

import numpy as np

from .cli.bounds import Count, Index, Positive, Seed, Several, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path


@group()
class Traverse(RunToOpen):
    """One latent coordinate a row, from -range to range, the others fixed.

    The others are the code of a test image, for a VAE; a draw of the prior for a model
    that gives images no codes.
    """

    out: Path | None = None
    """The picture (.png); by default traversal.png in the run's folder."""
    rows: Count = 8
    """Coordinates, one a row: those of largest KL, for a VAE, else the first."""
    dims: tuple[Index, ...] = ()
    """These coordinates instead, counted in the flattened latent."""
    range: Positive = 3.0
    """The farthest value on both sides, in standard deviations of the prior."""
    num: Several = 9
    """Values of each coordinate."""
    image: Index = 0
    """Number of the test image, for a VAE."""
    label: str | None = None
    """The class of a conditional model, by its name or its number; by default that of
    the test image, or 0."""
    seed: Seed = 0
    """Seed of the draw of the prior."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def traverse(options: Traverse) -> None:
    """Draw, write, say where."""
    import jax

    from gengen.tasks import latents, require
    from gengen.types import HasLatents

    from .progress import progress
    from .run.pictures import save_grid, to_uint8
    from .run.sampler import calls_in_words
    from .run.workdir import open_workdir

    check_numbers(options)
    out = picture_path(options, "traversal.png")
    trained = open_workdir(options.workdir, options.step)
    model = trained.model
    require(model, HasLatents, "take a model with latents, such as a VAE or a GAN")
    z, condition, dims, names, of = centre(trained, options)
    num = len(dims) * options.num
    print(f"cost: {num} images, {calls_in_words(model.nfe(), num)}")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    values = np.linspace(-options.range, options.range, options.num, dtype=np.float32)
    along = partial(latents.traverse, model, dims=dims, values=values, **condition)
    with progress("images", 1) as advance:
        x = to_uint8(jax.jit(along)(trained.params, trained.state, z=z))
        advance(1)
    caption = (
        f"Each row: one coordinate of the latent of {of} at these values, the others "
        f"fixed, by the {trained.record.experiment} of step {trained.step} on "
        f"{trained.record.data.name}."
    )
    heads, flat = [f"{value:.3g}" for value in values], x.reshape(-1, *x.shape[2:])
    save_grid(out, flat, options.num, names, column_names=heads, caption=caption)
    print(f"a row: one coordinate of the latent of {of}: {out}")


def centre(trained, options: Traverse) -> tuple:
    """(z, its condition, the coordinates, their names, what z is the latent of)."""
    import jax

    from gengen.types import Encodes

    from .run.labels import asked_label
    from .run.sampler import given_classes

    label = asked_label(trained, options.label)
    given = given_classes(trained.model, 1, label)
    if isinstance(trained.model, Encodes):
        z, own, kl = code(trained, options)
        given = own if label is None else given
        dims = options.dims or np.argsort(-kl, kind="stable")[: options.rows].tolist()
        names = [f"z{d} {kl[d]:.2f}" if d < len(kl) else "" for d in dims]
        of = f"test image {options.image} (with its KL to N(0, 1) in nats)"
    else:
        weights, key = (trained.params, trained.state), jax.random.key(options.seed)
        z = trained.model.sample_latent(*weights, key[None])[0]
        dims = options.dims or range(min(options.rows, z.size))
        names, of = [f"z{d}" for d in dims], "a draw of the prior"
    return z, {name: value[0] for name, value in given.items()}, dims, names, of


def code(trained, options: Traverse) -> tuple:
    """(z of the test image, its condition, mean KL of each coordinate in nats).

    The KL is a mean over the first 1,000 test images.
    """
    import jax

    from gengen.errors import BadInput
    from gengen.losses.divergence import gaussian_kl

    dataset = trained.dataset("test", options.data_dir)
    if options.image >= dataset.size:
        last = dataset.size - 1
        raise BadInput(f"--image {options.image}: test images are 0 to {last}")
    posterior = jax.jit(trained.model.posterior)

    def encoded(indices):
        batch = dataset.fetch(indices)
        return trained.model.condition.read(batch), posterior(trained.params, batch)

    given, own = encoded(np.array([options.image]))
    z = trained.model.code(trained.params, *own)
    _, (mean, logvar) = encoded(np.arange(min(dataset.size, 1_000)))
    return z[0], given, np.asarray(gaussian_kl(mean.T, logvar.T) / len(mean))


def main() -> None:
    """The command line."""
    run_command(lambda: traverse(parse(Traverse, "traverse")))


if __name__ == "__main__":
    main()
