"""The discriminative model p(y|x): labels compete for the mass, images do not.

    log p(y|x) = log softmax(f(x))_y,    loss = -log p(y|x), mean over the batch

It is trained, saved and resumed like any family, but it has no density of x and draws
no samples: whatever the image, its labels sum to one, so it cannot reject an
unreasonable image. What it gives to the others: features in which samples and data are
compared, labels for judging conditional samples, and p(y|x) for Bayes' rule.

Trained on noisy images z = a(t) x + b(t) ε of a diffusion's path it is p(y|z), and
`ClassifierGuide` makes samples of an unconditional diffusion conditional by its
gradient, without training that again.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Labels, check_batch
from gengen.diffusion.guidance import classifier_guided
from gengen.diffusion.noisy import clean, noisy, unit_variance
from gengen.diffusion.paths import Path
from gengen.errors import BadInput, no_density
from gengen.objective import loss, map_batch
from gengen.spaces import Space
from gengen.types import Array, Discriminative, Guides, HasFeatures, frozen, static


@static
class Classifier(Discriminative, Guides, HasFeatures):
    """p(y|x) of a network x -> (logits [B, classes], features [B, F])."""

    net: nn.Module
    """The network; with a path it takes times t [B], too."""
    space: Space
    """The type of x."""
    labels: Labels
    """The type of y: what the network predicts."""
    augment: Callable | None = None
    """(batch, key) -> batch, at module scope or a static value; in training only."""
    label_smoothing: float = 0.0
    """The share of the target that is spread over all classes (Szegedy et al. 2016,
    arXiv:1512.00567, section 7)."""
    path: Path | None = None
    """The path of the noise, at uniform times; None for clean images. Dhariwal and
    Nichol 2021, arXiv:2105.05233, section 4."""
    density: ClassVar[str] = "none"

    def init(self, key, batch=None):
        """Parameters; a batch is checked and not needed."""
        check_batch(self.space, self.labels, batch)
        x, more = self.space.zeros(1), {} if self.path is None else {"t": jnp.zeros(1)}
        (logits, _), variables = self.net.init_with_output(key, x, **more)
        if logits.shape != (1, self.labels.num):
            raise BadInput(
                f"the network's logits have shape {list(logits.shape)} for one example "
                f"of {self.labels.num} classes: give it that many"
            )
        return {"classifier": variables["params"]}, {}

    def losses(self):
        own = self.loss
        return {"classifier": map_batch(self.augment, own) if self.augment else own}

    def _apply(self, params, z, t, **kwargs):
        """The network of z at times t [B], scaled to variance one, or of x."""
        z, more = unit_variance(self.path, z, t)
        return self.net.apply({"params": params["classifier"]}, z, **more, **kwargs)

    def _clean(self, params, batch):
        """The log-probabilities of the classes of a batch as it is: at time 0."""
        return self._apply(params, *clean(self.path, self.space.read(batch)))

    def _label(self, batch) -> Array:
        """y [B] of a batch."""
        return self.labels.read(batch)[self.labels.key]

    @loss
    def loss(self, params, state, batch, key):
        """-log p(y|x), mean over the known labels, in nats; metric "accuracy".

        A label of -1 is unknown, and its image counts for nothing.
        """
        label, key_noise = self._label(batch), jax.random.fold_in(key, 1)
        z, t = noisy(self.path, self.space.read(batch), key_noise)
        logits, _ = self._apply(params, z, t, train=True, rngs={"dropout": key})
        target = jax.nn.one_hot(label, logits.shape[-1])
        target = (1.0 - self.label_smoothing) * target
        target = target + self.label_smoothing / logits.shape[-1]
        nats = -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)
        right = jnp.argmax(logits, axis=-1) == label
        known = (label >= 0).astype(nats.dtype)
        each = known / jnp.maximum(jnp.sum(known), 1.0)
        return jnp.sum(each * nats), (state, {"accuracy": jnp.sum(each * right)})

    def log_prob_labels(self, params, state, batch, key) -> Array:
        """log p(y|x) [B, classes] nats; the key is not used."""
        return jax.nn.log_softmax(self._clean(params, batch)[0])

    @property
    def target(self) -> Labels:
        """What it guides a sampler to: a class."""
        return self.labels

    def log_prob_at(self, params, state, z, t, c) -> Array:
        """log p(y|z) [B] nats of the class in c, of noisy z at times t, [] or [B]."""
        if self.path is None:
            raise BadInput(
                "this classifier has seen clean images only: train one with a path"
            )
        t = jnp.broadcast_to(t, z.shape[:1])
        log_p = jax.nn.log_softmax(self._apply(params, z, t)[0])
        return jnp.take_along_axis(log_p, c[self.labels.key][:, None], axis=-1)[:, 0]

    def log_likelihood(self, params, state, batch, key):
        """Raises BadInput: there is no density of x."""
        no_density("a classifier")

    def features(self, params, state, batch, key) -> Array:
        """What the last layer sees, [B, F]; the key is not used."""
        return self._clean(params, batch)[1]

    def maps(self, params, state, x) -> list[Array]:
        """What each convolution makes of x without noise, [B, h, w, F] each.

        Raises BadInput for a network without convolutions.
        """
        z, t = clean(self.path, x)
        keep = {"capture_intermediates": _is_convolution, "mutable": ["intermediates"]}
        _, found = self._apply(params, z, t, **keep)
        if not (maps := jax.tree.leaves(found.get("intermediates", {}))):
            raise BadInput(
                f"a {type(self.net).__name__} without convolutions has no maps to "
                "compare images in: take a ResNet, or a ConvEncoder"
            )
        return maps

    def sample(self, params, state, key, num, **condition):
        """Raises BadInput: p(y|x) says nothing about which x there are."""
        raise BadInput(
            "a classifier draws no samples, it is p(y|x): sample a generative model, "
            "and use tasks.bayes.conditional_from to make it p(x|y)"
        )


def _is_convolution(module: nn.Module, method: str) -> bool:
    return isinstance(module, nn.Conv) and method == "__call__"


@static
class ClassifierGuide:
    """A sampler's guide: the score plus scale ∇ log p(c | z) of another model.

    Its arrays are state["frozen"]["classifier"].
    """

    classifier: Guides
    """A model with `path`, `target` and `log_prob_at`."""
    scale: float = 1.0
    """The weight of the gradient: 1 is Bayes' rule for an unconditional model."""
    divides_by_a: ClassVar[bool] = True
    extra_calls: ClassVar[int] = 0

    @property
    def condition(self):
        """What it guides to: labels, or a text."""
        return self.classifier.target

    def __call__(self, predict, process, state):
        if self.classifier.path != process.path:
            raise BadInput(
                f"the classifier's images are noisy by {self.classifier.path}, the "
                f"sampler's by {process.path}: train it along the sampler's path"
            )
        own = frozen(state, "classifier")

        def log_prob(z, t, c):
            return self.classifier.log_prob_at(*own, z, t, c)

        return classifier_guided(predict, process, log_prob, self.scale)
