"""Another path with more noise (or less): σ ← shift · σ, for large images."""

import math

from gengen.diffusion.paths.path import Path, is_discrete
from gengen.errors import BadInput
from gengen.types import Array, static


@static
class Shifted(Path):
    """A path whose noise-to-signal ratio at every time is `shift` times as large.

    On the linear path t ← shift t/(1 + (shift - 1) t). As part of the path it is shared
    by training and sampling, and cannot be applied twice by mistake. Esser et al. 2024,
    arXiv:2403.03206, equation 23; Hoogeboom, Heek and Salimans 2023, arXiv:2301.11093.
    """

    path: Path
    """A continuous path."""
    shift: float
    """The factor on σ = b/a, above 0; above 1 there is more noise."""

    def __post_init__(self):
        if not 0 < self.shift < math.inf:
            raise BadInput(f"shift={self.shift}: it must be above 0 (1 is none)")
        if is_discrete(self.path):
            raise BadInput(
                f"{self.path} has numbered steps, which cannot be shifted: shift a "
                "continuous path, such as VariancePreserving()"
            )

    def _t(self, t):
        return self.path.extended_time(self.path.a(t), self.shift * self.path.b(t))

    def a(self, t: Array) -> Array:
        return self.path.a(self._t(t))

    def b(self, t: Array) -> Array:
        return self.path.b(self._t(t))

    def extended_time(self, a: Array, b: Array) -> Array:
        return self.path.extended_time(self.shift * a, b)


def resolution_shift(pixels: int, base: int) -> float:
    """√(pixels/base): what keeps the uncertainty of an enlarged image the same.

    Esser et al. 2024, arXiv:2403.03206, section 5.3.2.

    >>> resolution_shift(64 * 64, 32 * 32)
    2.0

    Args:
        pixels: the number of pixels of an image.
        base: the number of pixels at which the shift is 1.
    """
    return math.sqrt(pixels / base)
