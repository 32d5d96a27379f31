"""Classifier-free guidance: r̂ = r̂_∅ + scale (r̂_y - r̂_∅).

One convention: `scale` = 1 is no guidance, 0 is unconditional, above 1 sharpens. The
paper's (1 + w) r̂_y - w r̂_∅ is `scale = from_paper_w(w)`. The weights sum to one, so
guided x̂, ε̂, velocity and score are the same guidance, whatever is predicted.

Ho and Salimans 2022, arXiv:2207.12598, equation 6.
"""

from collections.abc import Callable

from gengen.types import Array


def from_paper_w(w: float) -> float:
    """scale = 1 + w for the w of (1 + w) r̂_y - w r̂_∅."""
    return 1.0 + w


def guided(conditional: Callable, unconditional: Callable, scale: Array | float):
    """The guided `denoise(z, t)` from two of them: two evaluations a call."""

    def denoise(z: Array, t: Array) -> Array:
        base = unconditional(z, t)
        return base + scale * (conditional(z, t) - base)

    return denoise
