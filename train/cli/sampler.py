"""The options of samplers, in the groups that the doors put together."""

import dataclasses
from pathlib import Path
from typing import Annotated, get_type_hints

from .bounds import AtLeast, AtMost, Calls, Count, Fraction, Positive, Weight
from .groups import group, meaning
from .names import GridName, SolverName

Time = Annotated[float, AtLeast(0), AtMost(1)]


@group()
class SolverOptions:
    """How a diffusion model's sampler steps from noise to data."""

    steps: Calls | None = None
    """The sampler's steps; by default the run's own."""
    solver: SolverName | None = None
    """The sampler's solver; by default the run's own."""
    grid: GridName | None = None
    """The grid of the sampler's times; by default the run's own."""


@group()
class GuidanceOptions:
    """Guidance of a conditional diffusion model to the class."""

    guidance_scale: Weight | None = None
    """Classifier-free guidance: 1 is none, above 1 sharpens; by default the run's
    own."""
    interval: tuple[Time, Time] | None = None
    """The times at which there is guidance, 0 the data and 1 the noise."""
    rescale: Time | None = None
    """Share of a guided image's contrast that is given back, against overexposure."""
    threshold: Fraction | None = None
    """Dynamic thresholding of x at each step: the quantile, such as 0.995."""


@group()
class GuideOptions:
    """Guidance of a diffusion model by networks of other runs."""

    guide: Path | None = None
    """Workdir of a worse or shorter run of the same kind, which takes the place of the
    network without a class in guidance: autoguidance."""
    classifier: Path | None = None
    """Workdir of a classifier of noisy images (--path), which guides the sampler to the
    class, also of an unconditional run; or of a clip, which guides to the caption."""


@group()
class SymbolOptions:
    """How an autoregressive model's symbols are drawn."""

    temperature: Positive | None = None
    """Below 1 the probable symbols become more probable; 1 is the model itself."""
    top_k: Count | None = None
    """Draw each symbol from the K most probable ones only."""
    top_p: Fraction | None = None
    """Draw each symbol from the fewest that have this much probability together."""


@group()
class StyleOptions:
    """How a StyleGAN's styles are drawn."""

    truncation: Time | None = None
    """Share of the way from the mean style to a latent's own: 1, the default, is the
    model itself, less is more typical, 0 one image."""


@group()
class SamplerOptions(
    SolverOptions, GuidanceOptions, GuideOptions, SymbolOptions, StyleOptions
):
    """How samples are drawn, by a model of any kind."""

    classifier_scale: Weight | None = None
    """How strongly the classifier guides: 1, the default, is Bayes' rule."""
    draw: bool = False
    """Draw x ~ p(x|z) where the run's samples are means E[x|z]."""


def swept(cls: type, names: tuple[str, ...]) -> type:
    """The options `names` of a class as lists of values, none by default."""
    hints = get_type_hints(cls, include_extras=True)
    fields = []
    for name in names:
        each = hints[name].__args__[0]  # of `each | None`
        fields.append((name, tuple[each, ...], dataclasses.field(default=())))
    made = dataclasses.make_dataclass("SweptOptions", fields, frozen=True, kw_only=True)
    made.MEANINGS = {name: meaning(cls, name) for name in names}
    made.__doc__ = "The sampler's options, of which each takes a list of values."
    return made


SWEPT = ("solver", "grid", "steps", "guidance_scale", "interval", "rescale")
SWEPT += ("threshold", "classifier_scale", "temperature", "top_k", "top_p")
SWEPT += ("truncation",)
SweptOptions = swept(SamplerOptions, SWEPT)
