"""Flow matching, and with other values of its keywords, all of diffusion."""

from typing import Annotated

from ..cli.bounds import AtLeast, AtMost
from ..cli.groups import group
from ..cli.names import (
    DRAWS,
    LIKELIHOODS,
    PATHS,
    TIMES,
    DrawName,
    LikelihoodName,
    PathName,
    TimesName,
)
from .diffusion import DataStdOptions, MatchingOptions
from .experiment import takes
from .nets import UNetOptions


@group()
class FlowOptions(MatchingOptions, DataStdOptions, UNetOptions):
    """The path from noise to data, and the times at which it is learned."""

    path: PathName = "linear"
    """z = a(t) x + b(t) noise: (1 - t) x + t noise, or another of
    gengen.diffusion.paths."""
    times: TimesName = "logit-normal"
    """Distribution of training times."""
    draw: DrawName = "independent"
    """The times of a batch: independent, in pairs t and 1 - t, or one per stratum."""
    importance_bins: Annotated[int, AtLeast(0), AtMost(10**5)] = 0
    """Above 0, times are drawn by the loss in so many bins."""
    likelihood: LikelihoodName | None = None
    """Bits per dimension are the variational bound (vlb: of infinitely many steps; or
    vlb-1000), or the density of the probability-flow ODE (pf-ode). By default vlb, and
    vlb-1000 of a table."""


@takes(FlowOptions)
def flow(data, o: FlowOptions):
    """Flow matching, along any path and with any solver of diffusion.

    Lipman et al. 2023, arXiv:2210.02747. Path, prediction, weight, times and solver are
    those of the whole matrix of diffusion. The defaults are for digits: 2.020 bits/dim
    of the validation images given their label (VLB), 88 s on 2 CPU cores. For
    Fashion-MNIST: --dataset fashion_mnist --channels 64 --multipliers 1 2 2 --blocks 2
    --batch-size 128 --ema-decay 0.9995 --steps 50000 (on an accelerator).
    """
    from gengen import presets

    values = o.matched(PATHS[o.path](o.data_std), o.data_std)
    if o.likelihood is None and o.path == "table":
        values["likelihood"] = LIKELIHOODS["vlb-1000"]()
    return o.diffusion(
        presets.flow,
        data,
        times=TIMES[o.times](),
        uniforms=DRAWS[o.draw](),
        importance_bins=o.importance_bins,
        **values,
    )
