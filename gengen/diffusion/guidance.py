"""Guidance: a `predict(z, t) -> r̂` made of others, so that every solver can use it.

    classifier-free   r̂ = r̂_∅ + scale (r̂_y - r̂_∅)             `guided`
    autoguidance      the same, with a worse network for r̂_∅   `guided`
    by a classifier   score + scale ∇ log p(y | z)             `classifier_guided`
    on x̂              rescaled, thresholded                    `map_denoised`

One convention: `scale` = 1 is no guidance, 0 is unconditional, above 1 sharpens. The
paper's (1 + w) r̂_y - w r̂_∅ is `scale = from_paper_w(w)`. The weights sum to one, so
guided x̂, ε̂, velocity and score are the same guidance, whatever is predicted.

Ho and Salimans 2022, arXiv:2207.12598, equation 6; Dhariwal and Nichol 2021,
arXiv:2105.05233, section 4; Karras et al. 2024, arXiv:2406.02507 (autoguidance).
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.process import Process, expand, from_data, recover
from gengen.errors import BadInput
from gengen.types import Array, State, static


class Guide(Protocol):
    """What wraps a sampler's network: called with `predict`, its process, the model's
    state, where a guide's own parameters are, and labels [B] (None without any).

    divides_by_a: whether it divides by a(t). num_classes: of the labels it understands,
    0 for none. evaluations: calls of the network that it adds to each.
    """

    divides_by_a: bool
    num_classes: int
    evaluations: int

    def __call__(
        self, predict: Callable, process: Process, state: State, label: Array | None
    ) -> Callable: ...


def from_paper_w(w: float) -> float:
    """scale = 1 + w for the w of (1 + w) r̂_y - w r̂_∅."""
    return 1.0 + w


def guided(
    conditional: Callable,
    unconditional: Callable,
    scale: Array | float,
    interval: tuple[float, float] = (0.0, 1.0),
    matched: Callable | None = None,
):
    """The guided `predict(z, t)` from two of them: two evaluations a call.

    interval: the times (t_low, t_high) at which there is guidance; at others, where t
    is one number for all, only the conditional one is evaluated. Kynkäänniemi et al.
    2024, arXiv:2404.07724. Channels beyond those of z (a learned variance) stay the
    conditional one's. matched: (guided r̂, conditional r̂, z, t) -> r̂, such as
    `Guidance.rescale`.
    """

    def both(z, t):
        r = conditional(z, t)
        mean, rest = r[..., : z.shape[-1]], r[..., z.shape[-1] :]
        base = unconditional(z, t)[..., : z.shape[-1]]
        r = base + scale * (mean - base)
        if matched is not None:
            r = matched(r, mean, z, t)
        return jnp.concatenate([r, rest], axis=-1)

    def predict(z: Array, t: Array) -> Array:
        if interval == (0.0, 1.0):
            return both(z, t)
        inside = (interval[0] <= t) & (t <= interval[1])
        if jnp.ndim(t) == 0:
            return jax.lax.cond(inside, both, conditional, z, t)
        return jnp.where(expand(inside, z), both(z, t), conditional(z, t))

    return predict


def classifier_guided(
    predict: Callable, process: Process, log_prob: Callable, scale: Array | float
):
    """The score plus scale ∇ log p(y | z), as a change of r̂ by -scale (b/a) det ∇.

    log_prob: (z, t) -> log p(y | z) [B] of a classifier of noisy data. Scale = 0 is
    no guidance of an unconditional network, and 1 is Bayes' rule. Dhariwal and Nichol
    2021, arXiv:2105.05233, algorithm 2; Song et al. 2021, arXiv:2011.13456, eq. 14.
    """

    def guided_predict(z: Array, t: Array) -> Array:
        r = predict(z, t)
        gradient = jax.grad(lambda z: jnp.sum(log_prob(z, t)))(z)
        m = process.matrix(expand(t, z))
        change = -scale * (m.b / m.a) * m.det * gradient
        return r.at[..., : z.shape[-1]].add(change)

    return guided_predict


def map_denoised(predict: Callable, process: Process, change: Callable):
    """`predict` with x̂ ← change(x̂, z, t) and the ε̂ that leaves z what it is.

    Where b(t) = 0 there is none: z is the data, and nothing changes.
    """

    def changed(z: Array, t: Array) -> Array:
        r = predict(z, t)
        mean, rest = r[..., : z.shape[-1]], r[..., z.shape[-1] :]
        x = change(recover(process, z, mean, t)[0], z, t)
        noisy = expand(process.path.b(t), z) > 0
        mean = jnp.where(noisy, from_data(process, z, x, t), mean)
        return jnp.concatenate([mean, rest], axis=-1)

    return changed


def thresholded(x: Array, quantile: float) -> Array:
    """x̂ clipped to [-s, s] and divided by s = max(1, that quantile of |x̂|), a sample.

    Saharia et al. 2022, arXiv:2205.11487, section 2.3 (dynamic thresholding).
    """
    size = jnp.quantile(jnp.abs(x).reshape(x.shape[0], -1), quantile, axis=-1)
    s = expand(jnp.maximum(size, 1.0), x)
    return jnp.clip(x, -s, s) / s


def rescaled(x: Array, conditional: Array, share: float) -> Array:
    """x̂ with the standard deviation of the conditional x̂_y: share of it, a sample.

    share · x̂ std(x̂_y)/std(x̂) + (1 - share) · x̂. The paper does so to what the network
    predicts; on x̂ it is the same for every prediction. Lin et al. 2024,
    arXiv:2305.08891, equations 15 and 16.
    """
    axes = tuple(range(1, x.ndim))
    stds = [jnp.std(each, axes, keepdims=True) for each in (conditional, x)]
    return (share * stds[0] / stds[1] + 1.0 - share) * x


@static
class Guidance:
    """How a sampler guides: the values of all of the above.

    scale: 1 for none. interval: the times at which there is guidance. rescale: share of
    `rescaled`, 0 for none. threshold: quantile of `thresholded`, None for none.
    """

    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    threshold: float | None = None

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise BadInput(
                f"guidance interval {self.interval}: two rising times in [0, 1], 0 the "
                "data and 1 the noise"
            )
        if not 0 <= self.rescale <= 1:
            raise BadInput(f"guidance rescale {self.rescale}: it must be in [0, 1]")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise BadInput(f"threshold {self.threshold}: a quantile, above 0 up to 1")

    def __call__(
        self,
        process: Process,
        conditional: Callable,
        unconditional: Callable | None = None,
        scale: Array | float | None = None,
    ) -> Callable:
        """`predict` from one without a label or of a worse network, and the real one.

        unconditional: None for no guidance. scale: in the place of this one's own.
        """
        predict = conditional
        if unconditional is not None:
            scale = self.scale if scale is None else scale

            def matched(r, mean, z, t):
                data = recover(process, z, mean, t)[0]

                def rescale(x, z, t):
                    return rescaled(x, data, self.rescale)

                return map_denoised(lambda z, t: r, process, rescale)(z, t)

            how = self.interval, matched if self.rescale else None
            predict = guided(conditional, unconditional, scale, *how)
        if self.threshold is not None:
            predict = map_denoised(
                predict, process, lambda x, z, t: thresholded(x, self.threshold)
            )
        return predict
