"""The diffusion transformer."""

from ..data.dataset import Spec
from .diffusion import (
    CouplingName,
    GridName,
    LikelihoodName,
    Prediction,
    SolverName,
    WeightName,
)
from .experiment import Experiment
from .shared import Precision


def dit(
    data: Spec,
    *,
    shift: float = 1.0,
    prediction: Prediction = "velocity",
    weight: WeightName = "plain",
    coupling: CouplingName = "independent",
    solver: SolverName = "euler",
    grid: GridName = "even",
    sampling_steps: int = 50,
    guidance_scale: float | None = None,
    likelihood: LikelihoodName = "vlb",
    conditional: bool = True,
    label_dropout: float = 0.1,
    patch: int = 2,
    width: int = 96,
    blocks: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
    precision: Precision = "float32",
    remat: bool = False,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    steps: int = 2_000,
    ema_decay: float = 0.995,
) -> Experiment:
    """DiT: flow matching by a transformer over patches, adaLN-zero.

    Peebles and Xie 2023, arXiv:2212.09748; Ma et al. 2024, arXiv:2401.08740 (SiT). The
    defaults are for digits; for Fashion-MNIST: --dataset fashion_mnist --width 256
    --blocks 8 --heads 8 --learning-rate 5e-4 --batch-size 128 --ema-decay 0.9995
    --steps 50000 (on an accelerator).

    Args:
        shift: Noise over signal at every time, times this: above 1 for large images.
        prediction: What the network is asked for, on the linear path.
        weight: Of the squared error at a time; a prediction's name measures the error
            in that prediction.
        coupling: Which noise goes with which image of a batch.
        solver: Default solver of the sampler.
        grid: Default grid of the sampler's times.
        sampling_steps: Default steps of the sampler.
        guidance_scale: Default classifier-free guidance of the sampler; 1 is none. By
            default 1.5 where the model can be guided.
        likelihood: What bits per dimension are: the variational bound (of infinitely
            many steps, or 1000), or the density of the probability-flow ODE.
        conditional: Generate a given class, where the data set has labels.
        label_dropout: Share of labels dropped in training, for guidance.
        patch: Side of a token's patch.
        width: Features of a token, a multiple of 4 and of `heads`.
        blocks: Layers of attention and MLP.
        heads: Attention heads.
        dropout: Dropout on what each layer adds.
        precision: Of the network's layers; parameters, losses and the statistics of
            norms are float32 all the same.
        remat: Recompute each block in the backward pass: less memory, more time.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Images a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    from gengen.diffusion.paths import Linear, Shifted
    from gengen.diffusion.process import Process

    from . import diffusion

    curve = Linear() if shift == 1 else Shifted(Linear(), shift)
    process = Process(curve, diffusion.predictions()[prediction])
    condition = data.condition(conditional)
    network = diffusion.network(
        "dit",
        condition,
        patch=patch,
        width=width,
        blocks=blocks,
        heads=heads,
        dropout=dropout,
        precision=precision,
        remat=remat,
        # XLA would undo the recomputation between blocks of one turn.
        unroll=1 if remat else min(blocks, 4),
    )
    return diffusion.experiment(
        data,
        process,
        network,
        condition,
        guidance_scale=guidance_scale,
        label_dropout=label_dropout,
        learning_rate=learning_rate,
        batch_size=batch_size,
        steps=steps,
        ema_decay=ema_decay,
        sampling_steps=sampling_steps,
        weight=diffusion.weights()[weight],
        times=diffusion.times()["logit-normal"],
        coupling=diffusion.couplings()[coupling],
        solver=diffusion.solvers()[solver],
        grid=diffusion.grids()[grid],
        likelihood=diffusion.likelihoods()[likelihood],
    )
