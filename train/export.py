"""python -m train.export --workdir DIR --out FILE: a run's sampler as one file.

The file needs jax and numpy, and neither gengen nor the run: the program with the
weights in it, for any number of samples, as `jax.export` writes it.
"""

from pathlib import Path
from typing import Literal

from .cli.command import parse, run_command
from .cli.groups import group
from .cli.options import RunToOpen
from .cli.sampler import SamplerOptions


@group()
class Export(RunToOpen, SamplerOptions):
    """Write a run's sampler as one file that needs jax alone.

    Seed, samples' numbers and class are arguments of the program, and so are the scale
    of guidance and a StyleGAN's truncation where no option fixes them; all else is
    fixed in it.
    """

    out: Path
    """The file, such as sampler.jaxexport."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = (
        "cpu",
        "cuda",
        "tpu",
    )
    """What the program can run on."""


def export(options: Export) -> None:
    """Lower, write, read back, say how it is called."""
    from gengen.errors import BadInput

    from .run import exported
    from .run.guides import guided
    from .run.sampler import given_keywords
    from .run.workdir import open_workdir

    if not options.platforms:
        raise BadInput("--platforms without any: name one, such as cpu")
    if options.out.is_dir():
        raise BadInput(f"--out {options.out} is a folder: name a file in it")
    trained = guided(open_workdir(options.workdir, options.step), options)
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before the work
    given = given_keywords(options)
    draw = exported.sampler_of(trained.model, trained.params, trained.state, given)
    program = exported.exported(draw, tuple(dict.fromkeys(options.platforms)))
    exported.save(options.out, program, exported.about(program, **of_run(trained)))
    said, _ = exported.load(options.out)
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB, for {', '.join(said['platforms'])}")
    for line in exported.example(options.out, said):
        print(line)


def of_run(trained) -> dict:
    """What the file says of the run that it is from."""
    from .run.sampler import sample_classes

    data = trained.record.data
    return {
        "experiment": trained.record.experiment,
        "dataset": data.name,
        "step": trained.step,
        "parameters": "averaged (EMA)" if trained.averaged else "live",
        "classes": sample_classes(trained.model),
        "class_names": list(data.class_names),
        "kind": data.kind,
        "levels": data.levels,
        "words": list(data.words),
    }


def main() -> None:
    """The command line."""
    run_command(lambda: export(parse(Export, "export")))


if __name__ == "__main__":
    main()
