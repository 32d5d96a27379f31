"""python -m train.edit --workdir DIR --strength 0.3 0.6 0.9: images, drawn again."""

from pathlib import Path
from typing import Annotated

import numpy as np

from .cli.bounds import Count, Fraction, NonEmpty, Seed, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen, picture_path
from .cli.sampler import GuidanceOptions, SolverOptions


@group()
class Edit(RunToOpen, SolverOptions, GuidanceOptions):
    """Test images noised in part and drawn again from there: SDEdit.

    A row: the image, then its drawings, strength by strength. With another class asked
    for, that is translation of images.
    """

    out: Path | None = None
    """The picture (.png); by default edit.png in the run's folder."""
    strength: Annotated[tuple[Fraction, ...], NonEmpty()] = (0.3, 0.5, 0.7, 0.9)
    """Share of the sampler's times that are drawn again: 1 is a sample of its own."""
    label: str | None = None
    """The class that they become, by its name or its number; by default each image's
    own."""
    caption: str | None = None
    """What they come to show; by default each image's own caption."""
    num: Count = 1
    """Drawings of each image with each strength."""
    rows: Count = 8
    """Test images, one a row."""
    seed: Seed = 0
    """Seed of the choice of test images and of all noise."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def edit(options: Edit) -> None:
    """Draw, write, say where."""
    import jax

    from .measure.outlier_sets import subset
    from .progress import progress
    from .run.asked import asked, shown
    from .run.pictures import to_uint8
    from .run.sampler import (
        as_keywords,
        calls_in_words,
        given_keywords,
    )
    from .run.workdir import open_workdir

    check_numbers(options)
    out = picture_path(options, "edit.png")
    given = given_keywords(options)
    trained = open_workdir(options.workdir, options.step)
    model, num = refuse_noiseless(trained.model), options.num
    sampler = as_keywords(model, given).get("sampler", model.sampler)
    dataset = trained.dataset("test", options.data_dir)
    batch = subset(dataset, options.rows, options.seed)
    x = model.space.read(batch)
    if options.label is None and options.caption is None:
        given = {name: batch[name] for name in model.condition.names}
    else:
        given = asked(trained, len(x), options.label, options.caption)
    each = [model.nfe(sampler.replace(strength=s)) for s in options.strength]
    calls = None if None in each else sum(each)
    print(f"cost: {calls_in_words(calls, len(x) * num)}")
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    with progress("images", 1) as advance:
        arguments = trained.params, trained.state, jax.random.key(options.seed), x
        drawn = program(model, sampler, options)(*arguments, given)
        image = to_uint8(np.concatenate([x[:, None], *drawn], axis=1))
        advance(1)
    names = shown(given, trained.record.data)
    write(out, image, trained, names, options)
    strengths = " ".join(map(str, options.strength))
    print(f"a row: the image, drawn again with strength {strengths}: {out}")


def refuse_noiseless(model):
    """The model; BadInput for one without noise to edit by."""
    from gengen.errors import BadInput
    from gengen.models.diffusion import Diffusion

    if isinstance(model, Diffusion):
        return model
    raise BadInput(
        f"a {type(model).__name__} has no noise to edit by: take a diffusion model, "
        "such as flow"
    )


def program(model, sampler, options: Edit):
    """(params, state, key, x, given) -> [B, num, H, W, C] for each strength."""
    import jax
    import jax.numpy as jnp

    from gengen.tasks.inverse import edit as edited

    def drawn(params, state, key, x, given):
        rows = {"x": x, **given}
        rows = {k: jnp.repeat(v, options.num, axis=0) for k, v in rows.items()}
        arguments = params, state, key, rows.pop("x")
        columns = [
            edited(model, *arguments, strength, sampler=sampler, **rows)
            for strength in options.strength
        ]
        return [y.reshape(len(x), options.num, *x.shape[1:]) for y in columns]

    return jax.jit(drawn)


def write(out: Path, image, trained, names: list[str], options: Edit) -> None:
    """The picture of images [rows, columns, H, W, C]."""
    from .run.pictures import save_grid

    repeats = [""] * (options.num - 1)
    heads = ["image"]
    for strength in options.strength:
        heads += [f"{strength:g}", *repeats]
    caption = (
        f"Test images of {trained.record.data.name}, noised to such a share of the "
        f"sampler's times and drawn again from there by the "
        f"{trained.record.experiment} of step {trained.step}."
    )
    flat = image.reshape(-1, *image.shape[2:])
    save_grid(out, flat, len(heads), names, column_names=heads, caption=caption)


def main() -> None:
    """The command line."""
    run_command(lambda: edit(parse(Edit, "edit")))


if __name__ == "__main__":
    main()
