"""Guidance: a `predict(z, t) -> r̂` made of others, so that every solver can use it.

    classifier-free   r̂ = r̂_∅ + scale (r̂_c - r̂_∅)             `guided`
    of several parts  r̂_0 + Σ_k scale_k (r̂_k - r̂_{k-1})        `composed`
    autoguidance      the same, with a guiding model for r̂_∅   `guided`
    by a classifier   score + scale ∇ log p(y | z)             `classifier_guided`
    on x̂              rescaled, thresholded                    `map_denoised`

One convention: `scale` = 1 is no guidance, 0 is unconditional, above 1 sharpens. The
paper's (1 + w) r̂_y - w r̂_∅ is `scale = from_paper_w(w)`. The weights sum to one, so
guided x̂, ε̂, velocity and score are the same guidance, whatever is predicted.

Ho and Salimans 2022, arXiv:2207.12598, equation 6; Dhariwal and Nichol 2021,
arXiv:2105.05233, section 4; Karras et al. 2024, arXiv:2406.02507 (autoguidance).
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from gengen.conditions import Condition
from gengen.diffusion.denoised import rescaled, thresholded
from gengen.diffusion.process import Process, expand, from_data, recover
from gengen.errors import BadInput
from gengen.types import Array, State, static


class Guide(Protocol):
    """What wraps a sampler's network: (predict, process, state) -> predict.

    `state` is the model's, in which a guide finds its own arrays.
    """

    divides_by_a: bool  # whether it divides by a(t)
    condition: Condition  # what it reads of c
    extra_calls: int  # network calls that it adds to each

    def __call__(
        self, predict: Callable, process: Process, state: State
    ) -> Callable: ...


def from_paper_w(w: float) -> float:
    """scale = 1 + w for the w of (1 + w) r̂_y - w r̂_∅.

    >>> from_paper_w(0.5)
    1.5
    """
    return 1.0 + w


def composed(
    predictors: Sequence[Callable],
    scales: Sequence[Array | float | None],
    interval: tuple[float, float] = (0.0, 1.0),
    matched: Callable | None = None,
) -> Callable:
    """r̂_0 + Σ_k s_k (r̂_k - r̂_{k-1}): a `predict` of K + 1, with K scales.

    predictors[k] knows more of the condition than predictors[k - 1], and the last knows
    all of it. With equal scales the sum telescopes to s r̂_K + (1 - s) r̂_0, which is
    classifier-free guidance. Brooks, Holynski and Efros 2023, arXiv:2211.09800,
    equation 3.

    Args:
        predictors: K + 1 functions `(z, t, *c) -> r̂`; each call is an evaluation.
        scales: K numbers, or arrays [B]; None reads c["guidance"].
        interval: the times (t_low, t_high) at which there is guidance. At others, where
            t is one number for all, only the last one is evaluated. Kynkäänniemi et al.
            2024, arXiv:2404.07724.
        matched: (guided r̂, conditional r̂, z, t) -> r̂, such as `Guidance.rescale`.

    Channels beyond those of z (a learned variance) are the last one's.

    >>> one, two = (lambda z, t: 0 * z + 1.0), (lambda z, t: 0 * z + 2.0)
    >>> composed([one, two], [3.0])(jnp.zeros((1, 1)), jnp.array(0.5)).item()
    4.0
    """
    *lesser, conditional = predictors
    if len(lesser) != len(scales):
        raise BadInput(f"{len(scales)} scales for {len(predictors)} predictors")

    def guided(z, t, *c):
        r = conditional(z, t, *c)
        mean, rest = r[..., : z.shape[-1]], r[..., z.shape[-1] :]
        means = [predict(z, t, *c)[..., : z.shape[-1]] for predict in lesser]
        r = means[0]
        for scale, less, more in zip(scales, means, [*means[1:], mean], strict=True):
            scale = c[0]["guidance"] if scale is None else scale
            r = r + expand(scale, z) * (more - less)
        if matched is not None:
            r = matched(r, mean, z, t)
        return jnp.concatenate([r, rest], axis=-1)

    def predict(z: Array, t: Array, *c) -> Array:
        if interval == (0.0, 1.0):
            return guided(z, t, *c)
        inside = (interval[0] <= t) & (t <= interval[1])
        if jnp.ndim(t) == 0:
            return jax.lax.cond(inside, guided, conditional, z, t, *c)
        return jnp.where(expand(inside, z), guided(z, t, *c), conditional(z, t, *c))

    return predict


def guided(
    conditional: Callable,
    unconditional: Callable,
    scale: Array | float | None,
    interval: tuple[float, float] = (0.0, 1.0),
    matched: Callable | None = None,
) -> Callable:
    """r̂_∅ + scale (r̂_c - r̂_∅): `composed` of two predictors.

    >>> one, two = (lambda z, t: 0 * z + 1.0), (lambda z, t: 0 * z + 2.0)
    >>> guided(two, one, 0.0)(jnp.zeros((1, 1)), jnp.array(0.5)).item()
    1.0
    """
    return composed([unconditional, conditional], [scale], interval, matched)


def classifier_guided(
    predict: Callable, process: Process, log_prob: Callable, scale: Array | float
):
    """The score plus scale ∇ log p(y | z), as a change of r̂ by -scale (b/a) det ∇.

    log_prob: (z, t, *c) -> log p(y | z) [B] of a classifier of noisy data. Scale = 0 is
    no guidance of an unconditional network, and 1 is Bayes' rule. Dhariwal and Nichol
    2021, arXiv:2105.05233, algorithm 2; Song et al. 2021, arXiv:2011.13456, eq. 14.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Score
    >>> process = Process(Linear(), Score())
    >>> predict, classifier = (lambda z, t: 0.0 * z), (lambda z, t: 2.0 * z[:, 0])
    >>> guided = classifier_guided(predict, process, classifier, 3.0)
    >>> guided(jnp.ones((1, 1)), jnp.array(0.5)).tolist()  # the score: 0 + 3 · 2
    [[6.0]]
    """

    def guided_predict(z: Array, t: Array, *c) -> Array:
        r = predict(z, t, *c)
        gradient = jax.grad(lambda z: jnp.sum(log_prob(z, t, *c)))(z)
        m = process.matrix(expand(t, z))
        change = -scale * (m.b / m.a) * m.det * gradient
        return r.at[..., : z.shape[-1]].add(change)

    return guided_predict


def map_denoised(predict: Callable, process: Process, change: Callable):
    """`predict` with x̂ ← change(x̂, z, t) and the ε̂ that leaves z what it is.

    Where b(t) = 0 there is none: z is the data, and nothing changes.

    >>> from gengen.diffusion.paths import Linear
    >>> from gengen.diffusion.process import Data
    >>> process = Process(Linear(), Data())
    >>> half = map_denoised(lambda z, t: z, process, lambda x, z, t: x / 2.0)
    >>> half(jnp.ones((1, 1)), jnp.array(0.5)).tolist()
    [[0.5]]
    """

    def changed(z: Array, t: Array, *c) -> Array:
        r = predict(z, t, *c)
        mean, rest = r[..., : z.shape[-1]], r[..., z.shape[-1] :]
        x = change(recover(process, z, mean, t)[0], z, t)
        noisy = expand(process.path.b(t), z) > 0
        mean = jnp.where(noisy, from_data(process, z, x, t), mean)
        return jnp.concatenate([mean, rest], axis=-1)

    return changed


def _named_number(pair) -> bool:
    """Whether it is a pair of a name and a number, or of a name and None."""
    if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
        return False
    return pair[1] is None or isinstance(pair[1], Real)


@static
class Guidance:
    """How a sampler guides: the values of all of the above."""

    scale: float | tuple[tuple[str, float], ...] | None = 1.0
    """1 for none; None reads a number per row from c["guidance"]. Pairs of a part's
    name and its scale guide in these parts, in turn, and keep the others."""
    interval: tuple[float, float] = (0.0, 1.0)
    """The times at which there is guidance: 0 is the data, 1 the noise."""
    rescale: float = 0.0
    """The share of `rescaled`, in [0, 1]; 0 for none."""
    threshold: float | None = None
    """The quantile of `thresholded`, in (0, 1]; None for none."""
    model: Any = None
    """A guiding model of the same process, which takes the null condition's place; its
    arrays are state["frozen"]["guide"]. Karras et al. 2024, arXiv:2406.02507."""
    against: tuple[tuple[str, Any], ...] = ()
    """Pairs of an entry's name and a value, as nested tuples, in the place of the null
    one: what samples are led away from, such as a negative caption."""

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
        pairs = self.scale if isinstance(self.scale, tuple) else (("", self.scale),)
        if not all(_named_number(pair) for pair in pairs):
            raise BadInput(
                f"guidance scale {self.scale!r}: a number, or pairs such as "
                '(("label", 2.0), ("text", 4.0))'
            )
        if self.against and (not self.scales or isinstance(self.scale, tuple)):
            raise BadInput(
                f"guidance scale {self.scale!r} with `against` leads away from "
                "nothing: give one number above 1"
            )
        finite = all(s is None or math.isfinite(s) for s in self.scales)
        if not finite or (self.model is not None and isinstance(self.scale, tuple)):
            raise BadInput(
                f"guidance scale {self.scale}: a finite number (1 is none), and one "
                "only with a guiding model"
            )

    @property
    def scales(self) -> tuple[float | None, ...]:
        """One scale per step of `composed`; () if nothing is guided."""
        if isinstance(self.scale, tuple):
            return tuple(scale for _, scale in self.scale)
        return () if self.scale == 1 else (self.scale,)

    @property
    def _replaced(self) -> bool:
        """Whether the least conditional predictor alone is wanted."""
        return self.scale == 0 and self.interval == (0.0, 1.0)

    @property
    def calls(self) -> int:
        """Network calls per evaluation of the guided network."""
        return 1 if self._replaced else len(self.scales) + 1

    def __call__(self, process: Process, predictors: Sequence[Callable]) -> Callable:
        """The guided `predict` of predictors that know ever more of the condition.

        Args:
            process: of all of them.
            predictors: one more than there are `scales`.
        """
        predict = predictors[-1]
        if self._replaced:
            predict = predictors[0]
        elif self.scales:

            def matched(r, mean, z, t):
                data = recover(process, z, mean, t)[0]

                def rescale(x, z, t):
                    return rescaled(x, data, self.rescale)

                return map_denoised(lambda z, t: r, process, rescale)(z, t)

            how = self.interval, matched if self.rescale else None
            predict = composed(predictors, self.scales, *how)
        if self.threshold is not None:
            predict = map_denoised(
                predict, process, lambda x, z, t: thresholded(x, self.threshold)
            )
        return predict
