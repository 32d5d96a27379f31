"""Outlier scores: how little an image looks like the data. Higher is stranger.

Every score is `(params, state, batch, key) -> [B]`; a threshold is a quantile of the
scores of known data, and AUROC compares scores without one.

**Likelihood** is the first idea: reject where p(x) is small (`NegativeLogLikelihood`,
-log2 p(x)/D, bits per dimension). It is known to fail: models of CIFAR-10 find SVHN
likelier than CIFAR-10 (Nalisnick et al. 2019, arXiv:1810.09136). Density is not
typicality. Under N(0, I) in D dimensions data lie at |x|² ≈ D, and the likeliest point
of all, x = 0, is one that is never drawn: log p(0) is D/2 nats above a typical log p.
Smooth, simple images are the zeros of models of images.

**Against a code.** What simplicity alone earns is what any universal code grants too.
The difference of code lengths of the model and of a general-purpose compressor,

    S(x) = (-log2 p(x) - L(x)) / D                        (`ComplexityCorrected`)

is the log-ratio of two densities, for 2^-L is one: the model and "any image at all".

**Against its own best.** A VAE's encoder is fitted to the data, so that on other
images its ELBO falls short of what the same decoder could reach,

    LR(x) = max_q ELBO(x; q) - ELBO(x; q_encoder) >= 0       (`LikelihoodRegret`)

**Reconstruction.** What a bottleneck learnt from the data does not hold, it cannot
give back: |x - x̂|²/D (`ReconstructionError`).

**Features.** Distances in a representation, not in pixels: to the k-th nearest
training feature (`FeatureDistance`), or to the nearest class as a Gaussian
(`Mahalanobis`). What they compare with is `fit(features, labels)`, a dict of arrays
that the caller puts into `state["reference"]`.
"""

import math
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from gengen.errors import BadInput
from gengen.latent.bounds import elbo
from gengen.tasks import require, require_density
from gengen.tasks.code import code_length
from gengen.types import Array, Encodes, HasFeatures, Key, Reconstructs, static


@static
class NegativeLogLikelihood:
    """-log2 p(x)/D, [B] bits per dimension; D the pixels and channels, or tokens.

    A model of p(x|y) scores the image with the batch's label; p(x) without labels is
    `tasks.bayes.generative_classifier(model)`. Raises BadInput without a density.
    Bishop 1994, "Novelty detection and neural network validation".
    """

    model: Any

    def __post_init__(self):
        require_density(self.model)

    def __call__(self, params, state, batch, key) -> Array:
        log_p = self.model.log_likelihood(params, state, batch, key)
        chex.assert_shape(log_p, self.model.space.data(batch).shape[:1])
        return self.model.space.bits(log_p)


@static
class ComplexityCorrected:
    """(-log2 p(x) - L(x))/D, [B] bits per dimension, L the `code_length` of the image.

    Raises BadInput for a model without a density. Serrà et al. 2020, arXiv:1909.11480,
    section 3, where L is PNG's, JPEG 2000's or FLIF's length.
    """

    model: Any

    def __post_init__(self):
        require_density(self.model)

    def __call__(self, params, state, batch, key) -> Array:
        image, levels = self.model.space.data(batch), self.model.space.size
        bits = NegativeLogLikelihood(self.model)(params, state, batch, key)
        length = code_length(image, levels)
        return bits - length / math.prod(image.shape[1:])


# ---------------------------------------------------------------- autoencoders


@static
class ReconstructionError:
    """|x - x̂|²/D, [B], of x in [-1, 1] and x̂ the model's reconstruction.

    Raises BadInput for a model without `reconstruct`.
    """

    model: Any

    def __post_init__(self):
        require(self.model, Reconstructs, "take an autoencoder, such as a VAE")

    def __call__(self, params, state, batch, key) -> Array:
        x = self.model.space.read(batch)
        again = self.model.reconstruct(params, state, batch, key)
        chex.assert_equal_shape((x, again))
        return jnp.mean(jnp.square(x - again), axis=(1, 2, 3))


def paired_noise(key: Key, pairs: int, shape: tuple[int, ...]) -> Array:
    """ε and -ε [2 pairs, *shape], scaled: mean 0, mean square 1 in every coordinate.

    The mean of a function over it is exact where that is quadratic without mixed terms.

    >>> noise = paired_noise(jax.random.key(0), 4, (3,))
    >>> noise.shape, bool(jnp.allclose(jnp.mean(noise**2, axis=0), 1.0))
    ((8, 3), True)
    """
    half = jax.random.normal(key, (pairs, *shape))
    half = half / jnp.sqrt(jnp.mean(jnp.square(half), axis=0))
    return jnp.concatenate([half, -half])


@static
class LikelihoodRegret:
    """max_q ELBO(x; q) - ELBO(x; encoder), [B] nats, over q = N(mean, diag e^logvar).

    Adam for `steps` steps from the encoder's answer, the decoder fixed; `pairs` of
    antithetic noise, the same before, during and after, so that the regret is of one
    function, the best seen is kept and the answer is never negative. With few pairs
    the optimum fits its noise, and the regret is a little too large for all images. It
    costs 2 · pairs · steps decoder passes with gradients, in a loop (where XLA's
    convolutions are slow on CPU). For the VAE: a model needs
    `posterior` and `log_prob_given`, else this raises BadInput.

    Xiao, Yan and Amit 2020, arXiv:2003.02977, section 3, where the encoder's weights
    are moved for each image instead of its answer.
    """

    model: Any
    steps: int = 100
    learning_rate: float = 0.05
    pairs: int = 4

    def __post_init__(self):
        require(self.model, Encodes, "take a VAE")

    def __call__(self, params, state, batch, key) -> Array:
        key_noise, key_observe = jax.random.split(key)
        encoded = self.model.posterior(params, batch)
        log_prob = self.model.log_prob_given(params, batch, key_observe)
        noise = paired_noise(key_noise, self.pairs, encoded[0].shape)

        def bound(q):
            latent = self.model.latents(params, *q)
            each = jax.vmap(lambda e: elbo(log_prob, *q, e, latent=latent)[0])
            return jnp.mean(each(noise), axis=0)

        def loss(q):  # Examples share no coordinate, so Adam moves each by itself.
            value = bound(q)
            return -jnp.sum(value), value

        optimizer = optax.adam(self.learning_rate)

        def step(carry, _):
            q, memory, best = carry
            slope, value = jax.grad(loss, has_aux=True)(q)
            updates, memory = optimizer.update(slope, memory)
            return (
                optax.apply_updates(q, updates),
                memory,
                jnp.maximum(best, value),
            ), None

        first = bound(encoded)
        carry = encoded, optimizer.init(encoded), first
        (q, _, best), _ = jax.lax.scan(step, carry, length=self.steps)
        return jnp.maximum(best, bound(q)) - first


# ---------------------------------------------------------------- features

_matmul = partial(jnp.matmul, precision="highest")


def _features(score, params, state, batch, key) -> Array:
    if "reference" not in state:
        raise BadInput(
            f"{type(score).__name__} compares with training data: put its "
            'fit(features) into state["reference"]'
        )
    features = score.model.features(params, state, batch, key)
    chex.assert_rank(features, 2)
    return features


def _normalized(features: Array) -> Array:
    """Rows of length 1; a row of zeros stays."""
    size = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.where(size > 0, size, 1.0)


@static
class FeatureDistance:
    """Distance to the k-th nearest of N training features, [B] in 0 … 2.

    Features are normalised to length 1. All [B, N] similarities are formed at once: the
    batch is the block. Raises BadInput for fewer than k training features. Sun et al.
    2022, arXiv:2204.06507, section 3 (k = 50 for CIFAR-10).
    """

    model: Any
    k: int = 50

    def __post_init__(self):
        require(self.model, HasFeatures, "take a model with a representation")
        if self.k < 1:
            raise BadInput(f"k={self.k}: the nearest feature is k=1")

    @staticmethod
    def fit(features: Array, labels: Array | None = None) -> dict:
        """The reference of training features [N, D]; labels are not used."""
        chex.assert_rank(features, 2)
        return {"features": _normalized(features)}

    def __call__(self, params, state, batch, key) -> Array:
        found = _normalized(_features(self, params, state, batch, key))
        known = state["reference"]["features"]
        if self.k > len(known):
            raise BadInput(f"k={self.k} of {len(known)} training features: lower k")
        similarity = _matmul(found, known.T)
        nearest = jax.lax.top_k(similarity, self.k)[1][:, -1]
        # Not √(2 - 2 cos): near 0 that has lost half its digits.
        return jnp.linalg.norm(found - known[nearest], axis=-1)


@static
class Mahalanobis:
    """min_c (f - μ_c)ᵀ Σ⁻¹ (f - μ_c), [B]: classes are Gaussians of one covariance.

    The pseudo-inverse stands for Σ⁻¹: a direction in which no training feature varies
    does not count. Lee et al. 2018, arXiv:1807.03888, equations 1 and 2.
    """

    model: Any

    def __post_init__(self):
        require(self.model, HasFeatures, "take a model with a representation")

    @staticmethod
    def fit(features: Array, labels: Array | None = None) -> dict:
        """Class means and the tied precision of training features [N, D].

        labels: int [N]; all one class if None. Not under jit: it counts the classes.
        """
        chex.assert_rank(features, 2)
        if labels is None:
            labels = jnp.zeros(len(features), jnp.int32)
        chex.assert_shape(labels, features.shape[:1])
        classes, own = jnp.unique(jnp.asarray(labels), return_inverse=True)
        member = jax.nn.one_hot(own, len(classes), axis=0)  # [K, N]
        means = _matmul(member, features) / jnp.sum(member, axis=-1, keepdims=True)
        rest = features - means[own]
        covariance = _matmul(rest.T, rest) / len(features)
        return {
            "means": means,
            "precision": jnp.linalg.pinv(covariance, hermitian=True),
        }

    def __call__(self, params, state, batch, key) -> Array:
        features = _features(self, params, state, batch, key)
        precision = state["reference"]["precision"]

        def distance(mean):
            gap = features - mean
            return jnp.sum(_matmul(gap, precision) * gap, axis=-1)

        return jnp.min(jax.lax.map(distance, state["reference"]["means"]), axis=0)
