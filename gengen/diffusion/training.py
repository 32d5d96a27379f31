"""How training draws times, noise and dropped conditions, and what it weighs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gengen.diffusion.couplings import Coupling, Independent
from gengen.diffusion.matching import hybrid_loss, matching_loss
from gengen.diffusion.process import Process, usable_times
from gengen.diffusion.times import (
    Times,
    Uniform,
    histogram_quantile,
    importance,
    independent,
    sample_times,
)
from gengen.diffusion.weights import Unweighted, Weight
from gengen.errors import BadInput
from gengen.types import Array, Key, State, static


@static
class Training:
    """What the loss of a `Diffusion` draws and weighs."""

    times: Times = Uniform()
    """The distribution of t."""
    weight: Weight = Unweighted()
    """The weight of the squared error at time t."""
    uniforms: Callable = independent
    """The uniforms behind the times: `independent`, `antithetic` or `stratified`."""
    coupling: Coupling = Independent()
    """Which noise goes with which example of a batch."""
    importance_bins: int = 0
    """Above 0, times are drawn by their loss, in so many bins of time."""
    condition_dropout: float = 0.1
    """The share of rows whose condition is null."""
    vlb_weight: float = 0.0
    """Above 0, the network has twice the channels and learns variances, too, by this
    weight of the variational bound."""
    variance_steps: int = 1000
    """The number of steps whose variances are learned."""

    def __post_init__(self):
        if not 0 <= self.condition_dropout <= 1:
            raise BadInput(
                f"condition_dropout={self.condition_dropout}: a share, from 0 to 1"
            )

    def span(self, process: Process) -> tuple[float, float]:
        """(t_min, t_max): where the process, and the weight of its loss, is regular."""
        return usable_times(process, weight=self.weight)

    def init(self) -> State:
        """The second moments of the loss in each bin of time, if times need them."""
        bins = self.importance_bins
        return {"second_moment": jnp.ones(bins)} if bins else {}

    def each(self, predict: Callable, process: Process, x, noise, t) -> Array:
        """The loss of each row, [B]."""
        if self.vlb_weight:
            weights = self.weight, self.vlb_weight, self.variance_steps
            return hybrid_loss(predict, process, x, noise, t, *weights)
        return matching_loss(predict, process, x, noise, t, self.weight)

    def mean(
        self, loss: Callable, process: Process, key: Key, num: int, state: State
    ) -> tuple[Array, State]:
        """(the mean of loss(t) over `num` drawn times, the new state).

        With importance bins, times are drawn in proportion to the loss's root mean
        square in each bin, and weighed so that the mean is that over `times`. Nichol
        and Dhariwal 2021, arXiv:2102.09672, equation 18.
        """
        span, path = self.span(process), process.path
        if not self.importance_bins:
            t = sample_times(self.times, path, key, num, span, self.uniforms)
            return jnp.mean(loss(t)), state
        moment, u = state["second_moment"], self.uniforms(key, num)
        where, bins, correction = histogram_quantile(u, importance(moment))
        t = self.times.quantile(where, path)
        each = loss(span[0] + (span[1] - span[0]) * t)
        moment = _averaged(moment, bins, jax.lax.stop_gradient(each) ** 2)
        return jnp.mean(correction * each), {**state, "second_moment": moment}


def _averaged(moment: Array, bins: Array, square: Array, decay: float = 0.99) -> Array:
    """The running mean of `square` [B] in each of K bins that was seen."""
    seen = jnp.zeros_like(moment).at[bins].add(1.0)
    total = jnp.zeros_like(moment).at[bins].add(square)
    mean = total / jnp.maximum(seen, 1.0)
    return jnp.where(seen > 0, decay * moment + (1.0 - decay) * mean, moment)
