"""python -m train.translate --workdir DIR --to b: images of one domain as another's."""

from pathlib import Path
from typing import Literal

import numpy as np

from .cli.bounds import Count, Figures, Seed, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path


@group()
class Translate(RunToOpen):
    """Test images of one domain, translated to the other and back.

    Where the pairs are known (a data set pair:CHANGE:NAME), the true partner stands
    beside the translation, and translation.json in the run's folder says how near it
    came: to the partner, to its class, and back.
    """

    to: Literal["a", "b"] = "b"
    """The domain to which images are translated."""
    out: Path | None = None
    """The picture (.png); by default translation.png in the run's folder."""
    rows: Count = 8
    """Test images in the picture, one a row."""
    num: Figures = 1_000
    """Test images that are measured, at most."""
    seed: Seed = 0
    """Seed of the choice of test images and of the noise."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def translate(options: Translate) -> None:
    """Translate, draw, measure, say where."""
    from gengen.tasks import require
    from gengen.types import Translates

    from .data.pairs import knows_partners
    from .files import write_json
    from .measure.outlier_sets import subset
    from .progress import progress
    from .run.workdir import open_workdir

    check_numbers(options)
    out = picture_path(options, "translation.png")
    trained = open_workdir(options.workdir, options.step)
    require(trained.model, Translates, "take a CycleGAN's run")
    dataset = trained.dataset("test", options.data_dir)
    batch = subset(dataset, max(options.num, options.rows), options.seed)
    known = knows_partners(trained.record.data.name)
    forth, back = maps(trained, options.to)
    x, partner = ends(trained, batch, options.to)
    print(f"cost: {len(x):,} images to domain {options.to} and back, three times")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    with progress("images", 1) as advance:
        y = forth(x)
        write(out, trained, (x, y, partner if known else None, back(y)), options)
        advance(1)
    print(f"a row: the image, its translation, and the way back: {out}")
    if not known:
        print("no pairs are known: nothing is measured")
        return
    result = measured(trained, (x, y, partner), batch, (forth, back), options)
    path = options.workdir / "translation.json"
    write_json(path, result)
    print_figures(result, path)


def maps(trained, to: str) -> tuple:
    """(to the domain, from it), as functions of NumPy images in [-1, 1]."""
    import jax

    program = jax.jit(trained.model.translate, static_argnames="to")

    def mapped(x, to):
        parts = [x[i : i + 256] for i in range(0, len(x), 256)]
        run = [program(trained.params, trained.state, part, to=to) for part in parts]
        return np.concatenate([np.asarray(y) for y in run])

    other = {"a": "b", "b": "a"}[to]
    return (lambda x: mapped(x, to)), (lambda x: mapped(x, other))


def ends(trained, batch, to: str) -> tuple[np.ndarray, np.ndarray]:
    """(images of the domain they come from, those of the target in the same rows)."""
    to_model = trained.model.space.to_model
    a, b = (np.asarray(to_model(batch[key])) for key in ("image", "partner"))
    return (a, b) if to == "b" else (b, a)


def measured(trained, images, batch, functions, options: Translate) -> dict:
    """All figures, of at most `num` test images."""
    from .measure.translation import class_figures, figures

    x, y, partner = (image[: options.num] for image in images)
    forth, back = functions
    spec = trained.record.data
    result = {"to": options.to, "dataset": spec.name, "step": trained.step}
    result |= figures(x, partner, forth, back, seed=options.seed)
    if not spec.num_classes:
        return result
    train = trained.dataset("train", options.data_dir)
    known = train.fetch(np.arange(min(train.size, 5_000)))
    image = known["image"]
    if options.to == "b":
        from .data.pairs import change_of

        image = change_of(spec.name)(image, spec.levels)
    learned = np.asarray(trained.model.space.to_model(image)), known["label"]
    label = batch["label"][: options.num]
    return result | class_figures(learned, y, partner, label, spec.num_classes)


def print_figures(result: dict, path: Path) -> None:
    """A line for each kind of figure."""
    print(
        f"{result['num']:,} test images to domain {result['to']}: error "
        f"{result['error']:.3f} to the true partner (a copy: "
        f"{result['error_of_a_copy']:.3f}), mean rank {result['mean_rank']:.1f}, "
        f"first in {result['first_rank_share']:.1%}"
    )
    if "accuracy" in result:
        print(
            f"class accuracy {result['accuracy']:.1%} (true partners: "
            f"{result['accuracy_of_partners']:.1%}), diagonal {result['diagonal']:.1%}"
        )
    print(
        f"cycle error {result['cycle_error']:.4f}, with noise of 1/255 on the "
        f"translation {result['cycle_error_under_noise']:.4f}: {path}"
    )


def write(out: Path, trained, images: tuple, options: Translate) -> None:
    """The picture of (image, translation, partner or None, back)."""
    from .run.pictures import save_grid, to_uint8

    heads = ("image", f"to {options.to}", "partner", "back")
    shown = [(h, x) for h, x in zip(heads, images, strict=True) if x is not None]
    rows = min(options.rows, len(images[0]))
    x = np.stack([x[:rows] for _, x in shown], axis=1)
    other = {"a": "b", "b": "a"}[options.to]
    caption = (
        f"Test images of domain {other} of {trained.record.data.name}, their "
        f"translations, {'the true partners, ' if images[2] is not None else ''}and "
        f"the way back, by the {trained.record.experiment} of step {trained.step}."
    )
    flat = to_uint8(x.reshape(-1, *x.shape[2:]))
    names = [head for head, _ in shown]
    save_grid(out, flat, len(shown), column_names=names, caption=caption)


def main() -> None:
    """The command line."""
    run_command(lambda: translate(parse(Translate, "translate")))


if __name__ == "__main__":
    main()
