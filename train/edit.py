"""python -m train.edit --workdir DIR --strength 0.3 0.6 0.9: images, drawn again."""

from pathlib import Path
from typing import Annotated

import numpy as np

from .cli.bounds import Count, Fraction, NonEmpty, Seed, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import GuidanceOptions, SolverOptions


@group()
class Edit(RunToOpen, SolverOptions, GuidanceOptions):
    """Test images noised in part and drawn again from there: SDEdit.

    A row: the image, then one drawing a strength. With another class asked for, that
    is translation of images.
    """

    out: Path = Path("edit.png")
    """The picture (.png)."""
    strength: Annotated[tuple[Fraction, ...], NonEmpty()] = (0.3, 0.5, 0.7, 0.9)
    """Share of the sampler's times that are drawn again: 1 is a sample of its own."""
    label: str | None = None
    """The class that they become, by its name or its number; by default each image's
    own."""
    rows: Count = 8
    """Test images."""
    seed: Seed = 0
    """Seed of the choice of test images and of all noise."""
    data_dir: Path | None = None
    """Where the data set's files are."""


def edit(options: Edit) -> None:
    """Draw, write, say where."""
    import jax

    from gengen.errors import BadInput
    from gengen.models.diffusion import Diffusion
    from gengen.tasks.inverse import edit as edited

    from .cli.options import check_png
    from .measure.outlier_sets import subset
    from .run.labels import asked_label
    from .run.pictures import save_grid, to_uint8
    from .run.sampler import (
        as_keywords,
        calls_in_words,
        given_classes,
        given_keywords,
    )
    from .run.workdir import open_workdir

    given = given_keywords(options)
    check_numbers(options)
    check_png(options.out)
    trained = open_workdir(options.workdir, options.step)
    model = trained.model
    if not isinstance(model, Diffusion):
        raise BadInput(
            f"a {type(model).__name__} has no noise to edit by: take a diffusion "
            "model, such as flow"
        )
    sampler = as_keywords(model, given).get("sampler", model.sampler)
    batch = subset(
        trained.dataset("test", options.data_dir), options.rows, options.seed
    )
    x = model.space.read(batch)
    label = asked_label(trained, options.label)
    given = given_classes(model, len(x), label)
    if label is None:
        given = {name: batch[name] for name in given}
    each = [model.nfe(sampler.replace(strength=s)) for s in options.strength]
    calls = None if None in each else sum(each)
    print(f"cost: {calls_in_words(calls, len(x))}")
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before the work

    @jax.jit
    def drawn(params, state, key):
        arguments = params, state, key, x
        return [
            edited(model, *arguments, strength, sampler=sampler, **given)
            for strength in options.strength
        ]

    key = jax.random.key(options.seed)
    columns = [x, *drawn(trained.params, trained.state, key)]
    image = to_uint8(np.stack(columns, axis=1))
    names = trained.record.data.class_names
    rows = [names[each] for label in given.values() for each in label]
    save_grid(options.out, image.reshape(-1, *x.shape[1:]), len(columns), rows)
    strengths = " ".join(map(str, options.strength))
    print(f"a row: the image, drawn again with strength {strengths}: {options.out}")


def main() -> None:
    """The command line."""
    run_command(lambda: edit(parse(Edit, "edit")))


if __name__ == "__main__":
    main()
