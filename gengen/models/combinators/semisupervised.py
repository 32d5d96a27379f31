"""Few labels and many images: a conditional model and a p(y|x) that teach one another.

A conditional density p(x|y) has a bound of its own, b(x, y) <= log p(x|y). An image
with a label is worth b(x, y) + log p(y). One without is explained by every class, as
far as q(y|x) believes in it, and the sum over y is taken whole (marginalised):

    labelled:      b(x, y) + log p(y) + α log q(y|x)
    unlabelled:    Σ_y q(y|x) [b(x, y) + log p(y) - log q(y|x)]  <=  log p(x)

with equality in q at the posterior q(y|x) ∝ p(y) e^b. So q learns from images without
labels which class explains them best; and α makes it learn from the labels, too, which
the bound alone would not. With a VAE as p(x|y) this is model M2.

Kingma, Rezende, Mohamed and Welling 2014, arXiv:1406.5298, equations 6 to 9.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Labels, check_batch, labels_of
from gengen.errors import BadInput
from gengen.nets.conditioning import init_params
from gengen.objective import loss
from gengen.types import Array, HasFeatures, HasLatents, InfersLabels, Model, static


@static
class SemiSupervised(HasLatents, HasFeatures, InfersLabels):
    """p(x|y) and q(y|x) of one batch, in which a label of -1 is unknown.

    Samples, latents and likelihoods are those of p(x|y). Classes are equally likely.
    Raises BadInput for a generative model without a label or without a density.
    """

    generative: Model
    """p(x|y), with labels as its condition; its loss is minus a bound, or exact."""
    net: nn.Module
    """x -> (logits [B, classes], features [B, F])."""
    weight: float = 1.0
    """α, the weight of -log q(y|x), mean over the labelled images of a batch."""

    def __post_init__(self):
        kind = type(self.generative).__name__
        if not isinstance(self.generative.condition, Labels):
            raise BadInput(
                f"a {kind} of condition {self.generative.condition} has no p(x|y): "
                "give it Labels, which a semi-supervised model needs"
            )
        if self.generative.density == "none":
            raise BadInput(f"a {kind} has no density: take a VAE, or another model")
        if self.weight < 0:
            raise BadInput(f"weight={self.weight}: it must be at least 0")

    @property
    def space(self):
        """The type of x."""
        return self.generative.space

    @property
    def condition(self):
        """The labels, of which samples are drawn."""
        return self.generative.condition

    @property
    def labels(self) -> Labels:
        """The type of y."""
        return labels_of(self.condition)

    @property
    def density(self) -> str:
        """The generative model's."""
        return self.generative.density

    @property
    def likelihood_kind(self) -> str:
        """The generative model's."""
        return self.generative.likelihood_kind

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The generative model's."""
        return self.generative.latent_shape

    def init(self, key, batch=None):
        """Parameters of both; a batch is checked and not needed."""
        check_batch(self.space, self.condition, batch)
        key_p, key_q = jax.random.split(key)
        params, state = self.generative.init(key_p)
        own = init_params(self.net, key_q, self.space.zeros(1))
        return {"m2": {"generative": params, "labels": own}}, state

    def losses(self):
        return {"m2": self.loss}

    def log_prob_labels(self, params, state, batch, key) -> Array:
        """log q(y|x) [B, classes] nats; the key is not used."""
        return jax.nn.log_softmax(self._judge(params, batch)[0])

    def _judge(self, params, batch, **more):
        weights = {"params": params["m2"]["labels"]}
        return self.net.apply(weights, self.space.read(batch), **more)

    def bounds(self, params, state, batch, key) -> Array:
        """b(x, y) of every class, [B, classes] nats: minus its losses, one by one."""
        own, labels = params["m2"]["generative"], self.labels
        (minus_bound,) = self.generative.losses().values()
        data = self.space.data(batch)

        def one(x, key):
            def of_class(y):
                row = {self.space.key: x[None], labels.key: y[None]}
                return -minus_bound(own, state, row, key)[0]

            return jax.vmap(of_class)(jnp.arange(labels.num))

        return jax.vmap(one)(data, jax.random.split(key, len(data)))

    @loss
    def loss(self, params, state, batch, key):
        """Minus the bounds, mean over the batch, and α times the labels' surprise."""
        key_bound, key_drop = jax.random.split(key)
        joint = self.bounds(params, state, batch, key_bound) - math.log(self.labels.num)
        logits, _ = self._judge(params, batch, train=True, rngs={"dropout": key_drop})
        log_q, label = jax.nn.log_softmax(logits), batch[self.labels.key]
        known = label >= 0
        given = jax.nn.one_hot(label, self.labels.num)
        labelled = jnp.sum(given * joint, axis=-1)
        unlabelled = jnp.sum(jnp.exp(log_q) * (joint - log_q), axis=-1)
        num = jnp.maximum(jnp.sum(known), 1)
        surprise = -jnp.sum(given * log_q) / num
        right = jnp.sum(known & (jnp.argmax(log_q, axis=-1) == label)) / num
        bound = jnp.mean(jnp.where(known, labelled, unlabelled))
        metrics = {"bound": bound, "surprise": surprise, "accuracy": right}
        return self.weight * surprise - bound, (state, metrics)

    def log_likelihood(self, params, state, batch, key):
        """log p(x|y) or its bound, [B] nats of the data."""
        own = params["m2"]["generative"]
        return self.generative.log_likelihood(own, state, batch, key)

    def sample(self, params, state, key, num, **options):
        """The generative model's samples."""
        return self.generative.sample(
            params["m2"]["generative"], state, key, num, **options
        )

    def from_latent(self, params, state, z: Array, **given) -> Array:
        """The generative model's."""
        own = params["m2"]["generative"]
        return self.generative.from_latent(own, state, z, **given)

    def sample_latent(self, params, state, keys: Array) -> Array:
        """The generative model's."""
        return self.generative.sample_latent(params["m2"]["generative"], state, keys)

    def features(self, params, state, batch, key) -> Array:
        """What the last layer of q(y|x) sees, [B, F]; the key is not used."""
        return self._judge(params, batch)[1]

    def nfe(self) -> int:
        """Network calls per sample."""
        return self.generative.nfe()
