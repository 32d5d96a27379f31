"""How any experiment is trained: optimiser, learning rate, average, length."""

from typing import Annotated, Literal

from gengen.errors import BadInput

from ..cli.bounds import Above, AtLeast, AtMost, Positive, Share, Steps, Weight
from ..cli.groups import group
from .experiment import Experiment


@group()
class OptimizerOptions:
    """The optimiser, the same for every player of a model."""

    optimizer: Literal["adam", "adamw", "lion", "muon"] = "adam"
    """Adam, AdamW, Lion (which wants a rate 3 to 10 times smaller), or Muon, which
    orthogonalises the updates of matrices and leaves all other arrays to Adam."""
    learning_rate: Annotated[float, Above(0), AtMost(1e38)] = 2e-3
    """The learning rate, after the warm-up."""
    rate_schedule: Literal["constant", "cosine", "linear", "late-linear"] = "constant"
    """The learning rate after the warm-up: constant, or falling to 0 at the last step,
    late-linear from half of them on; then --steps is part of what the run is, and
    cannot be changed on resuming."""
    warmup: Annotated[int, AtLeast(0), AtMost(10**9)] = 100
    """Steps in which the learning rate rises from 0."""
    weight_decay: Weight = 0.0
    """Decoupled weight decay, times the learning rate, of arrays of two or more axes
    only (Muon: of two); biases and scales are spared. Adam has none: take adamw, lion
    or muon."""
    clip: Weight = 1.0
    """The gradient's norm, over all of a player's parameters, is clipped to this; 0
    does not clip."""
    b1: Share | None = None
    """Decay of the first moment; by default 0.9, of Muon 0.95."""
    b2: Share | None = None
    """Decay of the second moment; by default 0.999, of Lion 0.99."""


@group()
class TrainingOptions(OptimizerOptions):
    """How long the model is trained, and on how much at a time."""

    batch_size: Annotated[int, AtLeast(1), AtMost(10**6)] = 64
    """Examples per step."""
    steps: Steps = 1_200
    """Training steps in all."""
    ema_decay: Share = 0.995
    """Decay, per step, of the averaged parameters, from which samples are drawn."""
    ema_half_life: Positive | None = None
    """In the place of --ema-decay: the number of examples (images, or windows of text)
    after which a parameter's weight in the average has halved."""

    def experiment(self, model, *players: str) -> Experiment:
        """The model with an optimiser for each of its players."""
        rate = self.rate()
        return Experiment(
            model,
            {player: self.transformation(rate) for player in players},
            self.batch_size,
            self.steps,
            self.decay(),
            learning_rate=rate if callable(rate) else lambda step: self.learning_rate,
        )

    def decay(self) -> float:
        """The decay of the average per step: ½^(batch size / half-life)."""
        if self.ema_half_life is None:
            return self.ema_decay
        if self.ema_decay != type(self).ema_decay:
            raise BadInput(
                f"--ema-decay {self.ema_decay} and --ema-half-life "
                f"{self.ema_half_life:g} both say what the average forgets: leave one "
                "out"
            )
        return 0.5 ** (self.batch_size / self.ema_half_life)

    def rate(self):
        """The learning rate as a function of the step, or the constant."""
        import optax

        rise = optax.linear_schedule(0.0, self.learning_rate, self.warmup)
        if self.rate_schedule == "constant":
            return rise if self.warmup else self.learning_rate
        if self.warmup >= self.steps:
            raise BadInput(
                f"--rate-schedule {self.rate_schedule} --warmup {self.warmup}: the "
                f"rate rises to the last step, {self.steps}; take a shorter warm-up"
            )
        left = self.steps - self.warmup
        if self.rate_schedule == "cosine":
            fall = optax.cosine_decay_schedule(self.learning_rate, left)
        else:
            late = left // 2 if self.rate_schedule == "late-linear" else 0
            fall = optax.linear_schedule(self.learning_rate, 0.0, left - late, late)
        return (
            optax.join_schedules([rise, fall], [self.warmup]) if self.warmup else fall
        )

    def transformation(self, rate):
        """The optimiser of one player (optax)."""
        import optax

        if self.optimizer == "adam" and self.weight_decay:
            raise BadInput(
                f"--weight-decay {self.weight_decay:g}: adam has none; take "
                "--optimizer adamw"
            )
        betas = {"b1": self.b1, "b2": self.b2}
        betas = {name: beta for name, beta in betas.items() if beta is not None}
        decay = {"weight_decay": self.weight_decay}
        if self.optimizer == "adam":
            inner = optax.adam(rate, **betas)
        elif self.optimizer == "adamw":
            inner = optax.adamw(rate, **betas, **decay, mask=matrices)
        elif self.optimizer == "lion":
            inner = optax.lion(rate, **betas, **decay, mask=matrices)
        else:
            names = {"b1": "beta", "b2": "adam_b2"}
            betas = {names[name]: beta for name, beta in betas.items()}
            inner = optax.contrib.muon(rate, **betas, **decay)
        if not self.clip:
            return inner
        return optax.chain(optax.clip_by_global_norm(self.clip), inner)


def matrices(params):
    """Which arrays weights decay in: those of two or more axes."""
    import jax

    return jax.tree.map(lambda x: x.ndim >= 2, params)
