"""The discriminative model p(y|x): labels compete for the mass, images do not.

    log p(y|x) = log softmax(f(x))_y,    loss = -log p(y|x), mean over the batch

It is trained, saved and resumed like any family, but it has no density of x and draws
no samples: whatever the image, its labels sum to one, so it cannot reject an
unreasonable image. What it gives to the others: features in which samples and data are
compared, labels for judging conditional samples, and p(y|x) for Bayes' rule.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.images import to_unit
from gengen.objective import Bind, map_batch
from gengen.types import Array, BadInput, no_density, static


@static
class Classifier:
    """net x -> (logits [B, num_classes], features [B, F]), trained by cross-entropy.

    augment: a function (batch, key) -> batch at module scope or of a static value,
    applied in training only. label_smoothing: the share of the target spread over all
    classes (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    net: nn.Module
    levels: int = 256
    augment: Callable | None = None
    label_smoothing: float = 0.0
    density: ClassVar[str] = "none"

    def init(self, key, batch):
        if "label" not in batch:
            raise BadInput(
                "a classifier needs labels, and these data have none: take a labelled "
                "data set"
            )
        x = to_unit(batch["image"][:1], self.levels)
        return {"classifier": self.net.init(key, x)["params"]}, {}

    def losses(self):
        loss = Bind(Classifier.loss, self)
        return {"classifier": map_batch(self.augment, loss) if self.augment else loss}

    def _apply(self, params, image, **kwargs):
        weights = {"params": params["classifier"]}
        return self.net.apply(weights, to_unit(image, self.levels), **kwargs)

    def loss(self, params, state, batch, key):
        """-log p(y|x), mean over the batch, in nats; metric "accuracy"."""
        logits, _ = self._apply(
            params, batch["image"], train=True, rngs={"dropout": key}
        )
        target = jax.nn.one_hot(batch["label"], logits.shape[-1])
        target = (1.0 - self.label_smoothing) * target
        target = target + self.label_smoothing / logits.shape[-1]
        loss = -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))
        right = jnp.argmax(logits, axis=-1) == batch["label"]
        return loss, (state, {"accuracy": jnp.mean(right.astype(jnp.float32))})

    def log_prob_labels(self, params, state, batch, key) -> Array:
        """log p(y|x) [B, num_classes] nats; the key is not used."""
        return jax.nn.log_softmax(self._apply(params, batch["image"])[0])

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a classifier")

    def features(self, params, state, batch, key) -> Array:
        """What the last layer sees, [B, F]; the key is not used."""
        return self._apply(params, batch["image"])[1]

    def sample(self, params, state, key, num, **condition):
        """Raises BadInput: p(y|x) says nothing about which x there are."""
        raise BadInput(
            "a classifier draws no samples, it is p(y|x): sample a generative model, "
            "and use tasks.bayes.conditional_from to make it p(x|y)"
        )
