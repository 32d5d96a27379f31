"""python -m train.sample --workdir DIR: samples of a trained run, in a file.

A picture of images or of points, text of text, arrays of all.
"""

from pathlib import Path

from .cli.bounds import Count, Seed, Width, check_numbers
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
    drawn.png or drawn.txt in the run's folder."""
    label: str | None = None
    """The class, by its name or its number; by default the classes in turn."""
    caption: str | None = None
    """What the samples show, in the words of the data set's captions."""
    negative_caption: str | None = None
    """What guidance leads away from, in the place of no caption."""
    prompt: str = ""
    """What every sample of a run on text begins with."""
    length: Width | None = None
    """Bytes of a sample of text; by default those of a window. Longer ones are drawn
    window by window, each given the last half window before it."""
    batch_size: Count = 256
    """Samples at a time."""


def sample(options: Sample) -> None:
    """Draw, write, say where."""
    import jax

    from .progress import progress
    from .run.asked import against, asked
    from .run.guides import guided
    from .run.sampler import Sampler, given_keywords
    from .run.workdir import open_workdir

    check_numbers(options)
    trained = guided(open_workdir(options.workdir, options.step), options)
    model, spec = trained.model, trained.record.data
    out = output(options, spec)
    size = min(options.num, options.batch_size)
    prompt = options.prompt.encode(errors="surrogateescape")
    keywords = given_keywords(options) | against(trained, options.negative_caption)
    sampler = Sampler(model, size, prompt, options.length, **keywords)
    given = asked(trained, options.num, options.label, options.caption)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    weights, key = (trained.params, trained.state), jax.random.key(options.seed)
    with progress("samples", options.num) as advance:
        batches = sampler.batches(*weights, key, options.num, given, advance)
        write(out, batches, given, trained, options)
    kind = "averaged (EMA)" if trained.averaged else "live"
    what = f"{options.num} samples of step {trained.step}, {kind} parameters"
    print(f"{what}: {out}")


def output(options: Sample, spec) -> Path:
    """Where the samples go; BadInput for what cannot be written there, or begun."""
    from gengen.errors import BadInput

    from .run.outputs import check_picture
    from .run.pictures import SIDE
    from .run.scatter import is_plane

    plane = ".png" if is_plane(spec) else ".npz"
    shown = {"images": ".png", "text": ".txt"}.get(spec.kind, plane)
    out = options.out or options.workdir / f"drawn{shown}"
    if out.suffix not in (shown, ".npz"):
        kinds = {".png": ".png (a grid) or ", ".txt": ".txt (text) or "}.get(shown, "")
        raise BadInput(f"--out {out}: end it in {kinds}.npz (arrays)")
    for name in ("prompt", "length"):
        if getattr(options, name) and spec.kind != "text":
            raise BadInput(
                f"--{name} {getattr(options, name)!r} is of a text, and this run is of "
                f"{spec.examples}: leave it out"
            )
    if out.suffix == ".png" and spec.kind == "images":
        check_picture(options.num, spec.shape, SIDE)
    return out


def write(out: Path, batches, given: dict, trained, options: Sample) -> None:
    """Samples as a grid, text or arrays, of which memory holds a batch."""
    import numpy as np

    from .data.dataset import KEYS
    from .run.labels import class_names
    from .run.outputs import columns_of, save_arrays, save_texts
    from .run.pictures import save_grid, to_uint8
    from .run.sampler import sample_classes
    from .run.samples import as_data
    from .run.scatter import save_scatter

    spec, num = trained.record.data, options.num
    if out.suffix == ".txt":
        save_texts(out, batches)
    elif out.suffix == ".npz":
        arrays = (as_data(x, spec, trained.model) for x in batches)
        save_arrays(out, num, KEYS[spec.kind], arrays, **given)
    elif spec.kind == "reals":
        points = np.concatenate([as_data(x, spec, trained.model) for x in batches])
        save_scatter(out, points, spec)
    else:
        classes = sample_classes(trained.model) if options.label is None else 0
        images = np.concatenate([to_uint8(x) for x in batches])
        columns = columns_of(num, classes)
        heads = class_names(spec, classes) if columns == classes else ()
        save_grid(out, images, columns, column_names=[name[:10] for name in heads])


def main() -> None:
    """The command line."""
    run_command(lambda: sample(parse(Sample, "sample")))


if __name__ == "__main__":
    main()
