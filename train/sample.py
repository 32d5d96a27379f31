"""python -m train.sample --workdir DIR: samples of a trained run, in a file.

A picture of images, text of text, arrays of both.
"""

import dataclasses
from pathlib import Path

from .cli.command import parse, run_command
from .cli.options import RunToOpen
from .experiments.diffusion import GridName, SolverName


@dataclasses.dataclass(frozen=True)
class Sample(RunToOpen):
    """Draw samples from a trained run, with its averaged parameters if it has any.

    Sample i depends on (seed, i) only, whatever --num and --batch-size.
    """

    num: int = 64
    """Number of samples."""
    seed: int = 0
    """Seed of the samples."""
    out: Path | None = None
    """A grid (.png; .txt of a run on text), or arrays (.npz): image uint8 [N, H, W, C]
    in the data set's levels and label int32 [N]; tokens uint8 [N, L]. By default
    drawn.png or drawn.txt in the run's folder."""
    label: str | None = None
    """The class, by its name or its number; by default the classes in turn."""
    guidance_scale: float | None = None
    """Classifier-free guidance: 1 is none, above 1 sharpens."""
    interval: tuple[float, float] | None = None
    """The times at which there is guidance, 0 the data and 1 the noise."""
    rescale: float | None = None
    """Share of a guided image's contrast that is given back, against overexposure."""
    threshold: float | None = None
    """Dynamic thresholding of x at each step: the quantile, such as 0.995."""
    guide: Path | None = None
    """Workdir of a worse or shorter run of the same kind, which takes the place of the
    network without a class in guidance: autoguidance."""
    classifier: Path | None = None
    """Workdir of a classifier of noisy images (--path), which guides the sampler to the
    class, also of an unconditional run."""
    classifier_scale: float | None = None
    """How much it does: 1, the default, is Bayes' rule."""
    steps: int | None = None
    """The sampler's steps."""
    solver: SolverName | None = None
    """The sampler's solver."""
    grid: GridName | None = None
    """The grid of the sampler's times."""
    temperature: float | None = None
    """Of an autoregressive model's symbols: below 1 the probable become more so."""
    top_k: int | None = None
    """Draw each symbol from the K most probable ones only."""
    top_p: float | None = None
    """Draw each symbol from the fewest that have this much probability together."""
    prompt: str = ""
    """What every sample of a run on text begins with."""
    length: int | None = None
    """Bytes of a sample of text; by default those of a window. Longer ones are drawn
    window by window, each given the last half window before it."""
    batch_size: int = 256
    """Samples at a time."""


def sample(options: Sample) -> None:
    """Draw, write, say where."""
    import jax

    from .progress import progress
    from .run.guides import guided
    from .run.labels import asked_label
    from .run.sampler import Sampler, given_classes, given_keywords
    from .run.workdir import open_workdir

    check(options)
    trained = guided(open_workdir(options.workdir, options.step), options)
    model, spec = trained.model, trained.record.data
    out = output(options, spec)
    size = min(options.num, options.batch_size)
    prompt = options.prompt.encode(errors="surrogateescape")
    keywords = given_keywords(options)
    sampler = Sampler(model, size, prompt, options.length, **keywords)
    label = asked_label(trained, options.label)
    given = given_classes(model, options.num, label)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    weights, key = (trained.params, trained.state), jax.random.key(options.seed)
    with progress("samples", options.num) as advance:
        batches = sampler.batches(*weights, key, options.num, given, advance)
        write(out, batches, given, trained, options)
    kind = "averaged (EMA)" if trained.averaged else "live"
    what = f"{options.num} samples of step {trained.step}, {kind} parameters"
    print(f"{what}: {out}")


def check(options: Sample) -> None:
    """BadInput for numbers that no samples can have."""
    from .cli.options import at_least, check_numbers
    from .run.sampler import given_keywords

    at_least(options, num=1, batch_size=1)
    numbers = {"seed": options.seed, "classifier_scale": options.classifier_scale}
    if options.length is not None:
        at_least(options, length=1)
    check_numbers({**numbers, **given_keywords(options)})


def output(options: Sample, spec) -> Path:
    """Where the samples go; BadInput for what cannot be written there, or begun."""
    from gengen.errors import BadInput

    from .run.outputs import check_picture
    from .run.pictures import SIDE

    text = spec.kind == "text"
    kinds = {".txt": "text"} if text else {".png": "a grid"}
    (shown,) = kinds
    out = options.out or options.workdir / f"drawn{shown}"
    if out.suffix not in (shown, ".npz"):
        raise BadInput(
            f"--out {out}: end it in {shown} ({kinds[shown]}) or .npz (arrays)"
        )
    for name in ("prompt", "length"):
        if getattr(options, name) and not text:
            raise BadInput(
                f"--{name} {getattr(options, name)!r} is of a text, and this run is of "
                "images: leave it out"
            )
    if out.suffix == ".png":
        check_picture(options.num, spec.shape, SIDE)
    return out


def write(out: Path, batches, given: dict, trained, options: Sample) -> None:
    """Samples as a grid, text or arrays, of which memory holds a batch."""
    import numpy as np

    from gengen.images import to_levels

    from .run.labels import class_names
    from .run.outputs import columns_of, save_arrays, save_texts
    from .run.pictures import save_grid, to_uint8
    from .run.sampler import sample_classes

    spec, num = trained.record.data, options.num
    if out.suffix == ".txt":
        save_texts(out, batches)
    elif out.suffix == ".npz" and spec.kind == "text":
        save_arrays(out, num, "tokens", (x.astype(np.uint8) for x in batches), **given)
    elif out.suffix == ".npz":
        levels = (np.asarray(to_levels(x, spec.levels)) for x in batches)
        save_arrays(out, num, "image", levels, **given)
    else:
        classes = sample_classes(trained.model) if options.label is None else 0
        images = np.concatenate([to_uint8(x) for x in batches])
        columns = columns_of(num, classes)
        heads = class_names(spec, classes) if columns == classes else ()
        save_grid(out, images, columns, column_names=[name[:10] for name in heads])


def main() -> None:
    """The command line."""
    run_command(lambda: sample(parse(Sample, "python -m train.sample")))


if __name__ == "__main__":
    main()
