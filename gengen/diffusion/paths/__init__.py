"""Paths z = a(t) x + b(t) ε from data (t = 0) to noise (t = 1).

A path is a `static` dataclass with two functions a and b of times t (any shape).
`time_of_ratio(a, b)` is the time at which data and noise stand in the proportion a : b.

Up to the scale of z and the clock, a path is its noise-to-signal ratio σ = b/a alone,
so whatever is said in terms of σ holds for all: a grid, a distribution of training
times, and the shift to more noise at high resolution, which is σ ← shift · σ.
"""

from gengen.diffusion.paths.continuous import (
    Cosine,
    Karras,
    Linear,
    SubVariancePreserving,
    Trigonometric,
    VarianceExploding,
    VariancePreserving,
)
from gengen.diffusion.paths.path import Path, derivatives, is_discrete, snr
from gengen.diffusion.paths.shifted import Shifted, resolution_shift
from gengen.diffusion.paths.table import DDPMSchedule

__all__ = [
    "Cosine",
    "DDPMSchedule",
    "Karras",
    "Linear",
    "Path",
    "Shifted",
    "SubVariancePreserving",
    "Trigonometric",
    "VarianceExploding",
    "VariancePreserving",
    "derivatives",
    "is_discrete",
    "resolution_shift",
    "snr",
]
