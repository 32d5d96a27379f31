"""Hierarchical variational autoencoder."""

from typing import Annotated

from ..cli.bounds import AtLeast, AtMost, Depth, NonEmpty, Width
from ..cli.groups import group
from .experiment import takes
from .latent import BoundOptions, ConditionalOptions, ObservationOptions
from .nets import PrecisionOptions
from .training import TrainingOptions

Groups = Annotated[tuple[Annotated[int, AtLeast(1), AtMost(100)], ...], NonEmpty()]


@group(
    learning_rate=1e-3,
    batch_size=128,
    steps=1_500,
    ema_decay=0.995,
    likelihood="mixture",
    annealing_steps=500,
)
class HVAEOptions(
    TrainingOptions,
    PrecisionOptions,
    ConditionalOptions,
    ObservationOptions,
    BoundOptions,
):
    """The groups of latents and the networks of a hierarchical VAE."""

    groups: Groups = (2, 1)
    """Groups of latents at each resolution, the coarsest first; the last has half the
    image's sides."""
    latent: Width = 4
    """Channels of the latents of a group."""
    channels: Width = 32
    """Channels of the networks, a multiple of 8."""
    blocks: Depth = 1
    """Residual blocks before each group."""


@takes(HVAEOptions)
def hvae(data, o: HVAEOptions):
    """Hierarchical VAE: groups of latents, each given those before it.

    Vahdat and Kautz 2020, arXiv:2007.03898, without their flows and batch norm. The
    defaults are for digits: ELBO 2.078 bits/dim of the validation images, 103 s on a
    busy core. For Fashion-MNIST: --dataset fashion_mnist --groups 3 2 --channels 64
    --latent 8 --steps 40000 --annealing-steps 5000 (on an accelerator).
    """
    from gengen.models.hvae import HierarchicalVAE
    from gengen.nets.ladder import Ladder
    from gengen.observations.observation import outputs

    p_x, condition = o.observation(data), data.condition(o.conditional)
    height, width, depth = data.shape
    net = Ladder(
        (height, width, outputs(p_x, depth)),
        o.groups,
        o.latent,
        o.channels,
        o.blocks,
        condition=condition,
        dtype=o.dtype,
    )
    model = HierarchicalVAE(
        net,
        p_x,
        data.space(),
        condition,
        o.weight(),
        o.free_nats,
        o.importance_samples,
    )
    return o.experiment(model, "hvae")
