"""python -m train.complete --workdir DIR --out FILE.png: half-seen images, whole."""

import inspect
from pathlib import Path
from typing import Literal

import numpy as np

from .cli.bounds import Count, InnerShare, Seed, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path
from .cli.sampler import GuidanceOptions, SolverOptions, SymbolOptions

Keep = Literal["top", "bottom", "left", "right", "random"]


@group()
class Complete(RunToOpen, SolverOptions, GuidanceOptions, SymbolOptions):
    """Completions of test images of which a part is seen: draws of p(x | that part).

    A row: the image, what is seen of it, completions. Those of an autoregressive model
    are exact where the part is a beginning of its order, else chosen among particles by
    their weight; the sampler of a diffusion model is made to agree with the part; a VAE
    infers its latent from the part.
    """

    out: Path | None = None
    """The picture (.png); by default completion.png in the run's folder."""
    keep: Keep = "top"
    """The half that is seen; random: that share of all pixels, scattered."""
    share: InnerShare = 0.5
    """How much of the image is seen."""
    num: Count = 8
    """Completions of each image."""
    rows: Count = 8
    """Test images, one a row."""
    particles: Count | None = None
    """Candidates for each completion, one of which is chosen by its weight. For
    an autoregressive model one, the default, is exact where the part is a beginning of
    the model's order: the top, in raster order. With --scales 2, whose small image
    comes first, no half is one, so more are needed. For a VAE they are chains of its
    latent, 8 by default."""
    method: Literal["repaint", "replace", "posterior", "projection"] | None = None
    """How a diffusion model completes: what is seen replaces those pixels at every
    level of noise, once or --repeats times per step (repaint, the default), or guides
    the sampler."""
    repeats: Count | None = None
    """How often --method repaint draws each step; 10 by default."""
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
    from .measure.outlier_sets import subset
    from .progress import progress
    from .run.sampler import calls_in_words
    from .run.workdir import open_workdir

    out = picture_path(options, "completion.png")
    given = check(options)
    trained = open_workdir(options.workdir, options.step)
    keywords = check_run(trained, options, given)
    dataset = trained.dataset("test", options.data_dir)
    batch = subset(dataset, options.rows, options.seed)
    mask = seen(options.keep, options.share, dataset.spec.shape, options.seed)
    num = len(batch["image"])
    calls = calls_in_words(evaluations(trained.model, keywords))
    print(f"cost: {num * options.num:,} completions, {calls} each")
    drawn = program(trained, options, mask, keywords)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    rows = []
    with progress("images", num) as advance:
        for i in range(num):
            rows.append(drawn(i, {name: x[i : i + 1] for name, x in batch.items()}))
            advance(i + 1)
    write(out, trained, batch, mask, [x for x, _ in rows], options)
    effective = [count for _, count in rows]
    if (particles := particles_of(trained.model, keywords)) > 1:
        print(
            f"effective particles: {np.mean(effective):.1f} of {particles} "
            f"(the worst row: {np.min(effective):.1f})"
        )
    what = f"{options.keep}, {options.share:.0%}"
    print(f"a row: the image, what is seen ({what}), completions: {out}")


def check(options: Complete) -> dict:
    """The sampler's options that are given; BadInput for numbers that cannot be."""
    from gengen.errors import BadInput

    from .run.sampler import COMPLETION, KEYWORDS, given_keywords

    given = given_keywords(options, KEYWORDS + COMPLETION)
    check_numbers(options)
    if options.repeats and options.method not in (None, "repaint"):
        raise BadInput(
            f"--repeats {options.repeats}: only --method repaint repeats its steps; "
            "leave it out"
        )
    return given


def check_run(trained, options: Complete, given: dict) -> dict:
    """The keywords of the run's `complete`; BadInput for a run that has none."""
    from gengen.tasks import require
    from gengen.types import Completes

    from .run.sampler import as_keywords

    trained.record.data.images_only("train.complete")
    require(
        trained.model, Completes, "take a VAE, a diffusion or an autoregressive model"
    )
    return as_keywords(trained.model, given)


def program(trained, options: Complete, mask: np.ndarray, keywords: dict):
    """(number, a batch of one) -> (its completions, their mean effective particles).

    BadInput, before anything is computed, where the model cannot complete such a mask.
    """
    import jax
    import jax.numpy as jnp

    from gengen.images import require_finite

    def row(params, state, key, batch):
        many = {name: jnp.repeat(x, options.num, axis=0) for name, x in batch.items()}
        x, count = trained.model.complete(params, state, key, many, mask, **keywords)
        return x, jnp.mean(count)

    compiled, keys = jax.jit(row), jax.random.key(options.seed)
    keys = jax.random.split(keys, options.rows)
    weights = trained.params, trained.state
    jax.eval_shape(compiled, *weights, keys[0], trained.record.data.example(1))

    def drawn(i, batch):
        x, count = compiled(*weights, keys[i], batch)
        require_finite(x, "completion", i * options.num)
        return np.asarray(x), float(count)

    return drawn


def write(out: Path, trained, batch, mask, completions, options: Complete) -> None:
    """The picture."""
    from gengen.images import to_unit

    from .run.labels import names_of
    from .run.pictures import save_grid, to_uint8

    image = np.asarray(to_unit(batch["image"], trained.record.data.levels))
    known = np.where(mask, image, -0.6)
    x = np.concatenate([image[:, None], known[:, None], np.stack(completions)], axis=1)
    names = names_of(batch.get("label"), trained.record.data)
    heads = ("image", "seen", "completions")
    caption = (
        f"Test images of {trained.record.data.name}, the part of them that is seen "
        f"({options.keep}, {options.share:.0%}), and {options.num} draws of the rest "
        f"by the {trained.record.experiment} of step {trained.step}."
    )
    flat = to_uint8(x.reshape(-1, *image.shape[1:]))
    save_grid(out, flat, options.num + 2, names, column_names=heads, caption=caption)


def evaluations(model, keywords: dict) -> int | None:
    """Network evaluations of one completion."""
    from gengen.diffusion.inverse import inverse_solver
    from gengen.latent.completion import CompletesByLatent
    from gengen.models.diffusion import Diffusion

    from .run.sampler import calls_of

    if isinstance(model, CompletesByLatent):
        return model.completion_nfe(**keywords)
    if not isinstance(model, Diffusion):
        return particles_of(model, keywords) * calls_of(model, keywords)
    sampler = keywords.get("sampler", model.sampler)
    method, repeats = keywords.get("method", "repaint"), keywords.get("repeats", 10)
    solver, guides = inverse_solver(method, sampler.solver, 0, 0, repeats)
    return model.nfe(sampler.replace(solver=solver, guides=guides))


def particles_of(model, keywords: dict) -> int:
    """The candidates for each completion, 1 of a model that has no choice."""
    takes = inspect.signature(model.complete).parameters
    usual = takes["particles"].default if "particles" in takes else 1
    return keywords.get("particles", usual)


def main() -> None:
    """The command line."""
    run_command(lambda: complete(parse(Complete, "complete")))


if __name__ == "__main__":
    main()
