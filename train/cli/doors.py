"""The commands beside training, how the program is called, and its version."""

import importlib.metadata

DOORS = {
    "sample": "Draw samples of a run.",
    "complete": "Complete images of which a part is seen.",
    "edit": "Noise images in part and draw them again.",
    "restore": "Enlarge small images.",
    "interpolate": "Walk between two latents.",
    "traverse": "Show what each latent coordinate does.",
    "styles": "Truncate and mix a StyleGAN's styles, and find those of an image.",
    "translate": "Map images of one domain to another, and measure by known pairs.",
    "evaluate": "Measure samples, likelihood, speed and size of a run.",
    "compare": "Train all families under one budget, and compare them.",
    "sweep": "Measure a run under lists of options.",
    "bayes": "Turn p(x|y) into a classifier, or p(x) into p(x|y).",
    "outliers": "Judge which scores of a run find outliers.",
    "probe": "Measure what a linear classifier reads off a run's features.",
    "benchmark": "Time a run's sampler beside the bare program.",
    "throughput": "Time the input pipeline of a data set.",
    "import_weights": "Make a run of weights that another library trained.",
    "export_weights": "Write a run's weights for another library.",
    "inspect": "List the arrays of a checkpoint.",
    "export": "Write a run's sampler as one file that needs jax alone.",
    "publish": "Write a run to a small folder that every command opens.",
}


def command(name: str = "") -> str:
    """How a command or experiment is called where this program is installed.

    `gengen sample`; in a checkout `python -m train.sample`, `python -m train flow`.
    """
    if (__package__ or "").startswith("gengen_train"):
        return f"gengen {name}".rstrip()
    return f"python -m train{'.' if name in DOORS else ' '}{name}".rstrip()


def version() -> str:
    """The version of gengen that is installed; unknown in a checkout that is not."""
    try:
        return importlib.metadata.version("gengen")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"
