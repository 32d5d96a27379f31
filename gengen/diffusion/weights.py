"""What a squared error counts at time t: weight(process, t) · |r̂ - r|².

Whatever is predicted, the error can be measured in x, ε, v, … (`loss_weight`), so every
published weight is a function of time on the error of one prediction:

    ErrorIn(Noise()) L_simple of DDPM, which is SNR · |x̂ - x|²
    MinSNR(γ)        min(SNR, γ) · |x̂ - x|²
    TruncatedSNR()   max(SNR, 1) · |x̂ - x|²
    ELBOWeight()     ½ (-λ′) |ε̂ - ε|² = ½ (-SNR′) |x̂ - x|², whose integral is the bound
    Sigmoid(bias)    σ(bias - λ) times ELBOWeight()

with SNR = a²/b² and λ = log SNR. Kingma and Gao 2023, arXiv:2303.00848, collects them.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.diffusion.paths import derivatives, snr
from gengen.diffusion.process import Data, Prediction, Process, loss_weight
from gengen.types import Array, static


class Weight(Protocol):
    """(process, t [...]) -> [...], positive."""

    def __call__(self, process: Process, t: Array) -> Array: ...


@static
class Unweighted:
    """1: the error of what is predicted."""

    def __call__(self, process, t):
        return jnp.ones_like(t)


@static
class ErrorIn:
    """The error in another prediction's space: (det_other/det)²."""

    prediction: Prediction
    """What the error is measured in."""

    def __call__(self, process, t):
        return loss_weight(process, Process(process.path, self.prediction), t)


@static
class MinSNR:
    """min(SNR, gamma) on the error of x: no time outweighs the others.

    Hang et al. 2023, arXiv:2303.09556, equation 6.
    """

    gamma: float = 5.0
    """The largest weight γ of the error of x, above 0."""

    def __call__(self, process, t):
        # min(SNR, γ) = SNR · min(1, γ/SNR), and SNR on x is 1 on ε.
        a, b, _, _ = m = process.matrix(t)
        return jnp.minimum(a**2, self.gamma * b**2) / m.det**2


@static
class TruncatedSNR:
    """max(SNR, 1) on the error of x. Salimans and Ho 2022, arXiv:2202.00512, sec. 4."""

    def __call__(self, process, t):
        return jnp.maximum(snr(process.path, t), 1.0) * ErrorIn(Data())(process, t)


@static
class ELBOWeight:
    """½ (-λ′) on the error of ε: summed over dimensions, the bound's integrand in nats.

    = a (a b′ - b a′)/(b det²) on the error of r. Kingma et al. 2021, arXiv:2107.00630,
    equation 17; Song et al. 2021, arXiv:2101.09258 (weighting by g²).
    """

    def __call__(self, process, t):
        a, b, da, db = derivatives(process.path, t)
        return a * (a * db - b * da) / (b * process.matrix(t).det ** 2)


@static
class Sigmoid:
    """sigmoid(bias - λ) times `ELBOWeight`: a smaller weight where z is nearly clean.

    Kingma and Gao 2023, arXiv:2303.00848; Hoogeboom et al. 2024, arXiv:2410.19324.
    """

    bias: float = 0.0
    """The log SNR at which the factor is ½."""

    def __call__(self, process, t):
        share = jax.nn.sigmoid(self.bias - jnp.log(snr(process.path, t)))
        return share * ELBOWeight()(process, t)
