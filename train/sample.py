"""python -m train.sample --workdir DIR: samples of a trained run, as PNG or arrays."""

import dataclasses
from pathlib import Path

from train.command import parse, told
from train.experiments.flow import SolverName


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run, with its averaged parameters if it has any.

    Sample i depends on (seed, i) only, whatever --num and --batch-size.
    """

    workdir: Path
    """The run's folder."""
    num: int = 64
    """Number of samples."""
    seed: int = 0
    """Seed of the samples."""
    out: Path = Path("samples.png")
    """A grid (.png), or arrays (.npz): image uint8 [N, H, W, C] in the data set's
    levels and label int32 [N]."""
    label: int | None = None
    """The class; by default the classes in turn."""
    guidance_scale: float | None = None
    """Classifier-free guidance: 1 is none, above 1 sharpens."""
    steps: int | None = None
    """The sampler's steps."""
    solver: SolverName | None = None
    """The sampler's solver."""
    batch_size: int = 256
    """Samples at a time."""


def sample(options: Sample) -> None:
    """Draw, write, say where."""
    import math

    import jax
    import numpy as np

    from gengen.images import to_levels
    from gengen.types import BadInput
    from train.experiments.flow import solvers
    from train.options import check_numbers
    from train.pictures import save_grid, to_uint8
    from train.sampling import Sampler, class_labels
    from train.workdir import open_workdir

    if options.num < 1 or options.batch_size < 1:
        raise BadInput(
            f"--num {options.num} --batch-size {options.batch_size}: "
            "both must be at least 1"
        )
    if options.out.suffix not in (".png", ".npz"):
        raise BadInput(f"--out {options.out}: end it in .png (a grid) or .npz (arrays)")
    check_numbers({"seed": options.seed, "guidance_scale": options.guidance_scale})
    trained = open_workdir(options.workdir)
    given = {
        "guidance_scale": options.guidance_scale,
        "steps": options.steps,
        "solver": options.solver and solvers()[options.solver],
    }
    given = {name: value for name, value in given.items() if value is not None}
    sampler = Sampler(trained.model, min(options.num, options.batch_size), **given)
    labels = class_labels(trained.model, options.num, options.label)
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    key = jax.random.key(options.seed)
    x = sampler(trained.params, trained.state, key, options.num, labels)
    if options.out.suffix == ".npz":
        image = np.asarray(to_levels(x, trained.record.data.levels))
        arrays = (
            {"image": image} if labels is None else {"image": image, "label": labels}
        )
        np.savez_compressed(options.out, **arrays)
    else:
        classes = getattr(trained.model, "num_classes", 0)
        turns = bool(classes) and options.label is None and classes <= 20
        columns = classes if turns else math.ceil(math.sqrt(options.num))
        save_grid(options.out, to_uint8(x), columns)
    kind = "averaged (EMA)" if trained.averaged else "live"
    what = f"{options.num} samples of step {trained.step}, {kind} parameters"
    print(f"{what}: {options.out}")


def main() -> None:
    """The command line."""
    told(lambda: sample(parse(Sample, "python -m train.sample")))


if __name__ == "__main__":
    main()
