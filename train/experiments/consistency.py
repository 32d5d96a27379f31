"""Consistency models: a network of diffusion that ends a path in one call."""

from typing import Annotated

from ..cli.bounds import Above, AtLeast, AtMost, Calls, Count, Default, Positive
from ..cli.groups import group
from .diffusion import DroppedLabelOptions
from .experiment import takes
from .nets import DiTOptions


@group(steps=4_000, learning_rate=1e-3)
class ConsistencyOptions(DroppedLabelOptions, DiTOptions):
    """How the two points of a path come closer in training."""

    stages: Count = 4
    """Stages of training, of equal length; each closes the gap by --closing. Many make
    the gradient noisy, until the network forgets what it knew."""
    closing: Annotated[float, Above(1), AtMost(10**6)] = 2.0
    """By which factor a stage closes the gap, above 1."""
    noise_mean: Annotated[float, AtLeast(-20), AtMost(20)] = -1.1
    """Mean of the logarithm of the noise-to-signal ratio in training."""
    noise_std: Positive = 2.0
    """Its standard deviation."""
    sampling_steps: Annotated[Calls, Default()] = 1
    """Default calls of a sample; between two of them, noise is added."""


@takes(ConsistencyOptions)
def consistency(data, o: ConsistencyOptions):
    """Easy consistency tuning: a flow's network becomes a one-step generator.

    Geng et al. 2024, arXiv:2406.14548. Start from a run of `dit` with the same network:
    --init-from WORKDIR; without it, the first stages are those of a denoiser. The loss
    rises from stage to stage, so it does not say how good samples are: look at them, or
    let --evaluate-every measure them. The defaults are for digits: from a run of `dit`
    of 6,000 steps, with --learning-rate 5e-4, the Fréchet distance is 0.023 in one step
    and 0.008 in two, after 510 s on one busy CPU core (that of `dit` in fifty 0.011).
    For Fashion-MNIST: --dataset fashion_mnist --width 256 --blocks 8 --heads 8
    --learning-rate 1e-4 --batch-size 128 --ema-decay 0.9995 --steps 50000 (on an
    accelerator).
    """
    from gengen import presets
    from gengen.diffusion.consistency import ClosingGap
    from gengen.diffusion.sampler import Sampler
    from gengen.diffusion.solvers import Renoise
    from gengen.diffusion.times import LogNormal
    from gengen.models.combinators.consistency import Consistency

    condition = o.condition(data)
    flow = presets.flow(
        o.network(condition),
        data.space(),
        condition,
        condition_dropout=o.label_dropout,
        times=LogNormal(o.noise_mean, o.noise_std),
    )
    gap = ClosingGap(max(1, o.steps // o.stages), o.closing)
    sampler = Sampler(Renoise(), steps=o.sampling_steps)
    return o.experiment(Consistency(flow, gap, sampler=sampler), "denoiser")
