"""How likely data are: the variational bound as one number per example.

`bound` has the bound's terms, `density` the other estimator: the density of the ODE.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.conditions import Given
from gengen.diffusion.bound import Bound, bound_terms, continuous, steps
from gengen.diffusion.grids import Even, LogSNR, times_of
from gengen.diffusion.paths import is_discrete, snr
from gengen.diffusion.process import Process, usable_times
from gengen.errors import BadInput
from gengen.images import bin_width
from gengen.spaces import Images, Space
from gengen.types import Array, static


def sigma_min(levels: int = 256, fraction: float = 0.35) -> float:
    """The σ = b/a at which to end: a fraction of the bins' width 2/(levels - 1).

    If σ is too large, the softmax, which knows no prior of the levels, loses what the
    network knew; if it is too small, a network that knows no levels loses their
    spacing. The table has the nats lost per dimension at T = ∞: by quadrature for a
    network that is flat over several bins and for the exact ones of independent pixels,
    and measured for a U-Net trained for 1,500 steps (above its own best).

        fraction                      0.2     0.3     0.35    0.4     0.5
        flat                          0.225   0.029   0.008   0.002   0.000
        exact, 17 levels, digits      0.006   0.046   0.071   0.096   0.142
        exact, 256 levels, photos     0.000   0.001   0.002   0.002   0.004
        U-Net, 17 levels, digits      0.092   0.000   0.008   0.026   0.070

    >>> sigma_min(levels=3, fraction=0.25)
    0.25

    Args:
        levels: the number of levels of a dimension.
        fraction: the share of a bin's width, above 0.
    """
    return fraction * bin_width(levels)


class LikelihoodEstimator(Protocol):
    """(keys, predict, process, data, space, c) -> [B] nats of the data.

    keys [B]: one per row. predict: (z, t, c) -> r̂. data: as the batch holds them.
    """

    @property
    def kind(self) -> str:
        """What the number is: "VLB", …"""

    def __call__(
        self,
        keys: Array,
        predict: Callable,
        process: Process,
        data: Array,
        space: Space,
        c: Given,
    ) -> Array: ...


def lower_end(process: Process, levels: int, fraction: float = 0.35) -> float:
    """The time at which σ = `sigma_min`, or the process' own end if that is later.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Velocity
    >>> lower_end(Process(Linear(), Velocity()), levels=3, fraction=0.25)
    0.20000000298023224

    Args:
        process: the path, and what the network predicts.
        levels: the number of levels of a dimension.
        fraction: the share of a bin's width at which the chain ends.
    """
    low, _ = usable_times(process)
    with jax.ensure_compile_time_eval():
        one = jnp.ones(())
        t = process.path.time_of_ratio(one, sigma_min(levels, fraction) * one)
        if is_discrete(process.path):  # the first step, if σ is below all of them
            t = jnp.maximum(t, 1.0 / process.path.steps)
        return max(low, float(t))


@static
class VariationalBound:
    """An unbiased estimate of the bound from `draws` of its terms (`bound_terms`)."""

    steps: int | None = None
    """The number T of steps of the chain (DDPM has 1,000, at even times). None is the
    limit of infinitely many: its integral is drawn once in each of `draws` intervals
    that are even in log SNR."""
    draws: int = 16
    """The number of terms evaluated per example."""
    fraction: float = 0.35
    """The share of a bin's width at which the chain ends, `sigma_min`."""

    @property
    def kind(self) -> str:
        """ "VLB", of T = ∞, or "VLB-1000"."""
        return "VLB" if self.steps is None else f"VLB-{self.steps}"

    def grid(self, process: Process, levels: int) -> Array:
        """Times from t_max to where σ is a fraction of the levels' bins."""
        low = lower_end(process, levels, self.fraction)
        high = usable_times(process)[1]
        if self.steps is None:
            return times_of(LogSNR(), process.path, self.draws, (low, high))
        times = times_of(Even(), process.path, self.steps, (0.0, high))
        with jax.ensure_compile_time_eval():
            return jnp.append(times[times > low], low)  # what is below is one level

    def terms(self, keys, predict, process, image, levels) -> Bound:
        """The terms of the bound in nats, of an image of levels [B, ...]."""
        grid = self.grid(process, levels)
        limit = continuous if self.steps is None else steps
        draws, mass = None, None
        if self.steps is not None and self.draws < len(grid) - 1:
            # As often as log SNR changes: the error of ε is about as large everywhere.
            change = jnp.diff(jnp.log(snr(process.path, grid)))
            finite = jnp.isfinite(change)
            most = jnp.max(jnp.where(finite, change, 0.0))
            mass = jnp.where(finite, change, most)
            draws, mass = self.draws, mass / jnp.sum(mass)
        ask = keys, predict, process, image, grid, levels, limit, draws
        return bound_terms(*ask, mass=mass)

    def __call__(self, keys, predict, process, data, space, c):
        if not isinstance(space, Images):
            raise BadInput(
                f"a variational bound is of ordered levels, and the space is {space}: "
                "take FlowDensity for real numbers"
            )

        def bound(z, t):
            return predict(z, t, c)

        return -self.terms(keys, bound, process, data, space.size).total
