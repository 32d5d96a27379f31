"""python -m train.complete --workdir DIR --out FILE.png: half-seen images, whole."""

from pathlib import Path
from typing import Literal

import numpy as np

from .cli.bounds import Count, InnerShare, Seed, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuidanceOptions, SolverOptions, SymbolOptions

Keep = Literal["top", "bottom", "left", "right", "random"]


@group()
class Complete(RunToOpen, SolverOptions, GuidanceOptions, SymbolOptions):
    """Completions of test images of which a part is seen: draws of p(x | that part).

    A row: the image, what is seen of it, completions. Of an autoregressive model they
    are exact where the part is a beginning of its order, else chosen among particles by
    their weight; of a diffusion model the sampler is made to agree with the part.
    """

    out: Path = Path("completion.png")
    """The picture (.png)."""
    keep: Keep = "top"
    """The half that is seen; random: that share of all pixels, scattered."""
    share: InnerShare = 0.5
    """How much of the image is seen."""
    num: Count = 8
    """Completions of an image."""
    rows: Count = 8
    """Test images."""
    particles: Count | None = None
    """Of an autoregressive model: candidates for each completion, one of them chosen
    by its weight; 1, the default, is exact where the part is a beginning of the model's
    order: the top, in raster order; of --scales 2, whose small image comes first, no
    half is one, so it needs particles."""
    method: Literal["repaint", "replace", "posterior", "projection"] | None = None
    """Of a diffusion model: what is seen replaces those pixels at every level of noise,
    once or --repeats times a step (repaint, the default), or guides the sampler."""
    repeats: Count | None = None
    """Of repaint: how often each step is drawn; 10 by default."""
    seed: Seed = 0
    """Seed of the choice of test images and of all draws."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def seen(keep: Keep, share: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """bool [H, W, 1]: which pixels are observed; at least a line is, and one is not."""
    from gengen.errors import BadInput

    height, width = shape[:2]
    if min(height, width) < 2:
        raise BadInput(
            f"--keep {keep}: images of {height}×{width} have no two lines; take larger "
            "ones"
        )
    row, column = np.mgrid[:height, :width]
    places = {
        "top": row * width,
        "bottom": (height - 1 - row) * width,
        "left": column * height,
        "right": (width - 1 - column) * height,
        "random": np.random.default_rng(seed).permutation(row.size).reshape(row.shape),
    }[keep]
    size = {"top": width, "bottom": width, "left": height, "right": height}.get(keep, 1)
    least, most = size, row.size - size
    num = np.clip(round(share * row.size / size) * size, least, most)
    return (places < num)[..., None]


def complete(options: Complete) -> None:
    """Draw, write, say where."""
    import jax
    import jax.numpy as jnp

    from gengen.errors import BadInput
    from gengen.images import to_unit
    from gengen.tasks import require
    from gengen.types import Completes

    from .cli.options import check_png
    from .measure.outlier_sets import subset
    from .run.pictures import save_grid, to_uint8
    from .run.sampler import (
        COMPLETION,
        KEYWORDS,
        as_keywords,
        calls_in_words,
        given_keywords,
    )
    from .run.workdir import open_workdir

    given = given_keywords(options, KEYWORDS + COMPLETION)
    check_numbers(options)
    check_png(options.out)
    trained = open_workdir(options.workdir, options.step)
    trained.record.data.images_only("train.complete")
    model = trained.model
    require(model, Completes, "take a diffusion or an autoregressive model")
    keywords = as_keywords(model, given)
    if options.repeats and options.method not in (None, "repaint"):
        raise BadInput(
            f"--repeats {options.repeats}: only --method repaint repeats its steps; "
            "leave it out"
        )
    dataset = trained.dataset("test", options.data_dir)
    batch = subset(dataset, options.rows, options.seed)
    mask = seen(options.keep, options.share, dataset.spec.shape, options.seed)
    num, particles = len(batch["image"]), options.particles or 1
    calls = calls_in_words(evaluations(model, keywords))
    print(f"cost: {num * options.num * particles:,} samples, {calls} each")

    @jax.jit
    def row(params, key, batch):
        many = {name: jnp.repeat(x, options.num, axis=0) for name, x in batch.items()}
        return model.complete(params, trained.state, key, many, mask, **keywords)

    keys = jax.random.split(jax.random.key(options.seed), options.rows)
    first = {name: x[:1] for name, x in batch.items()}
    jax.eval_shape(row, trained.params, keys[0], first)  # refuses here
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    images, effective = [], []
    levels = dataset.spec.levels
    for i, image in enumerate(np.asarray(to_unit(batch["image"], levels))):
        one = {name: x[i : i + 1] for name, x in batch.items()}
        x, count = row(trained.params, keys[i], one)
        images += [image, np.where(mask, image, -0.6), *np.asarray(x)]
        effective += [float(jnp.mean(count))]
    save_grid(options.out, to_uint8(np.stack(images)), options.num + 2)
    if particles > 1:
        print(
            f"effective particles: {np.mean(effective):.1f} of {particles} "
            f"(the worst row: {np.min(effective):.1f})"
        )
    what = f"{options.keep}, {options.share:.0%}"
    print(f"a row: the image, what is seen ({what}), completions: {options.out}")


def evaluations(model, keywords: dict) -> int | None:
    """Network evaluations of one completion."""
    from gengen.diffusion.inverse import inverse_solver
    from gengen.models.diffusion import Diffusion

    from .run.sampler import calls_of

    if not isinstance(model, Diffusion):
        return calls_of(model, keywords)
    sampler = keywords.get("sampler", model.sampler)
    method, repeats = keywords.get("method", "repaint"), keywords.get("repeats", 10)
    solver, guides = inverse_solver(method, sampler.solver, 0, 0, repeats)
    return model.nfe(sampler.replace(solver=solver, guides=guides))


def main() -> None:
    """The command line."""
    run_command(lambda: complete(parse(Complete, "complete")))


if __name__ == "__main__":
    main()
