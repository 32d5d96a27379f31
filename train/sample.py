"""python -m train.sample --workdir DIR: samples of a trained run, in a file.

A picture of images, text of text, arrays of both.
"""

from pathlib import Path

from .cli.bounds import Count, Seed, check_numbers
from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import SamplerOptions


@group()
class Sample(RunToOpen, SamplerOptions):
    """Draw samples from a trained run, with its averaged parameters if it has any.

    Sample i depends on (seed, i) only, whatever --num and --batch-size.
    """

    num: Count = 64
    """Number of samples."""
    seed: Seed = 0
    """Seed of the samples."""
    out: Path | None = None
    """A grid (.png; .txt of a run on text), or arrays (.npz): image uint8 [N, H, W, C]
    in the data set's levels and label int32 [N]; tokens uint8 [N, L]. By default
    samples.png or samples.txt."""
    label: str | None = None
    """The class, by its name or its number; by default the classes in turn."""
    prompt: str = ""
    """What every sample of a run on text begins with."""
    batch_size: Count = 256
    """Samples at a time."""


def sample(options: Sample) -> None:
    """Draw, write, say where."""
    import jax

    from gengen.errors import BadInput

    from .run.guides import guided
    from .run.labels import asked_label
    from .run.sampler import Sampler, given_classes, given_keywords
    from .run.workdir import open_workdir

    check_numbers(options)
    trained = guided(open_workdir(options.workdir, options.step), options)
    text = trained.record.data.kind == "text"
    out = options.out or Path("samples.txt" if text else "samples.png")
    if out.suffix not in (shown := ".txt" if text else ".png", ".npz"):
        what = "text" if text else "a grid"
        raise BadInput(f"--out {out}: end it in {shown} ({what}) or .npz (arrays)")
    if options.prompt and not text:
        raise BadInput(
            f"--prompt {options.prompt!r} begins a text, and this run is of images: "
            "leave it out"
        )
    prompt = options.prompt.encode(errors="surrogateescape")
    size = min(options.num, options.batch_size)
    sampler = Sampler(trained.model, size, prompt, **given_keywords(options))
    label = asked_label(trained, options.label)
    given = given_classes(trained.model, options.num, label)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    key = jax.random.key(options.seed)
    x = sampler(trained.params, trained.state, key, options.num, given)
    write(out, x, given, trained, turns=label is None)
    kind = "averaged (EMA)" if trained.averaged else "live"
    what = f"{options.num} samples of step {trained.step}, {kind} parameters"
    print(f"{what}: {out}")


def write(out: Path, x, given: dict, trained, turns: bool) -> None:
    """Samples as a grid, text or arrays; `turns`: a column for each class."""
    import math

    import numpy as np

    from gengen.images import to_levels

    from .run.pictures import save_grid, to_uint8
    from .run.sampler import sample_classes
    from .run.samples import save_texts

    if out.suffix == ".txt":
        save_texts(out, x)
    elif out.suffix == ".npz":
        if trained.record.data.kind == "text":
            arrays = {"tokens": x.astype(np.uint8)}
        else:
            arrays = {"image": np.asarray(to_levels(x, trained.record.data.levels))}
        np.savez_compressed(out, **arrays, **given)
    else:
        classes = sample_classes(trained.model)
        by_class = turns and 0 < classes <= 20
        columns = classes if by_class else math.ceil(math.sqrt(len(x)))
        save_grid(out, to_uint8(x), columns)


def main() -> None:
    """The command line."""
    run_command(lambda: sample(parse(Sample, "sample")))


if __name__ == "__main__":
    main()
