"""Priors p(z) of latents: what the posteriors of all data together should look like.

    prior             log p(z)                                      parameters
    UnitGaussian      log N(z; 0, 1)                                none
    GaussianMixture   log Σ_k π_k N(z; μ_k, σ_k²)                   π, μ, σ
    Vamp              log 1/K Σ_k q(z | u_k)                        pseudo-inputs u_k
    FlowPrior         log N(f(z); 0, 1) + log |det ∂f/∂z|           of the flow f

The best prior for an encoder is its aggregate posterior, 1/N Σ_n q(z|x_n). `Vamp` is
that of K learned inputs in the place of the N data.

Tomczak and Welling 2018, arXiv:1705.07120 (Vamp); Dinh, Sohl-Dickstein and Bengio 2017,
arXiv:1605.08803 (flows); Xu et al. 2019, arXiv:1905.13452 (flows as priors).
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.losses.likelihood import normal_log_prob, per_example
from gengen.scan import normal, randint
from gengen.types import Array, Key, Tree, check_hashable, static

# x [K, *shape] -> (mean, logvar) of q(z|x), each [K, *latent].
Posterior = Callable[[Array], tuple[Array, Array]]


class Prior(Protocol):
    """p(z). A prior is a `static` value; `posterior` is the encoder, for `Vamp`."""

    def init(self, key: Key, z: Array, x: Array) -> Tree:
        """Parameters, {} for none; z [1, *latent] and x [1, *shape] give the shapes."""

    def log_prob(self, params: Tree, z: Array, posterior: Posterior) -> Array:
        """log p(z) [B] of z [B, *latent], nats."""

    def sample(
        self, params: Tree, keys: Array, shape: tuple[int, ...], posterior: Posterior
    ) -> Array:
        """z [B, *shape] of the keys [B]."""


def unit_log_prob(z: Array) -> Array:
    """log N(z; 0, 1) of z [B, ...], [B] nats.

    >>> round(unit_log_prob(jnp.zeros((1, 2))).item(), 4)
    -1.8379
    """
    return per_example(normal_log_prob(z, 0.0, 0.0))


def mixture_log_prob(z: Array, mean: Array, logvar: Array, log_weight: Array) -> Array:
    """log Σ_k π_k N(z; μ_k, σ_k²), [B] nats.

    Args:
        z: floats [B, *latent].
        mean: the means of the components, [K, *latent].
        logvar: their log-variances, like `mean`.
        log_weight: log π [K], which is normalised here.

    >>> mean = jnp.array([[0.0], [0.0]])
    >>> z = jnp.zeros((1, 1))
    >>> round(mixture_log_prob(z, mean, mean, jnp.zeros(2)).item(), 4)
    -0.9189
    """
    chex.assert_equal_shape([mean, logvar])
    chex.assert_equal_shape_suffix([z, mean], z.ndim - 1)
    chex.assert_shape(log_weight, mean.shape[:1])
    z, mean, logvar = (a.reshape(len(a), -1) for a in (z, mean, logvar))
    each = -0.5 * (
        jnp.sum(jnp.square(z[:, None] - mean) * jnp.exp(-logvar), axis=-1)
        + jnp.sum(logvar, axis=-1)
        + z.shape[1] * math.log(2.0 * math.pi)
    )  # [B, K]
    return jax.nn.logsumexp(each + jax.nn.log_softmax(log_weight), axis=1)


@static
class UnitGaussian:
    """N(0, 1) in every dimension.

    >>> prior = UnitGaussian()
    >>> round(prior.log_prob({}, jnp.zeros((1, 2)), None).item(), 4)
    -1.8379
    """

    def init(self, key: Key, z: Array, x: Array) -> Tree:
        """{}."""
        return {}

    def log_prob(self, params, z, posterior):
        """log N(z; 0, 1)."""
        return unit_log_prob(z)

    def sample(self, params, keys, shape, posterior):
        """Standard normal z."""
        return normal(keys, shape)


@static
class GaussianMixture:
    """K Gaussians with diagonal covariances and their own weights.

    At first the means are standard normal draws, and the variances and weights equal.

    >>> prior = GaussianMixture(3)
    >>> params = prior.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros((1, 4)))
    >>> params["mean"].shape, prior.log_prob(params, jnp.zeros((5, 2)), None).shape
    ((3, 2), (5,))
    """

    components: int
    """K, at least 1."""

    def __post_init__(self):
        _check_components(self)

    def init(self, key: Key, z: Array, x: Array) -> Tree:
        """Means, log-variances and log-weights of the components."""
        shape = (self.components, *z.shape[1:])
        return {
            "mean": jax.random.normal(key, shape),
            "logvar": jnp.zeros(shape),
            "log_weight": jnp.zeros(self.components),
        }

    def log_prob(self, params, z, posterior):
        """The mixture's log-density."""
        return mixture_log_prob(
            z, params["mean"], params["logvar"], params["log_weight"]
        )

    def sample(self, params, keys, shape, posterior):
        """A component by its weight, then its Gaussian."""
        key_k, key_z = (
            jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (2, 3)
        )
        k = jax.vmap(jax.random.categorical, (0, None))(key_k, params["log_weight"])
        return _drawn(key_z, params["mean"][k], params["logvar"][k])


@static
class Vamp:
    """The mixture of the posteriors of K pseudo-inputs, which are parameters.

    Tomczak and Welling 2018, arXiv:1705.07120, equation 9.

    >>> prior = Vamp(3)
    >>> prior.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros((1, 4)))["x"].shape
    (3, 4)
    """

    components: int
    """K, the number of pseudo-inputs, at least 1."""
    spread: float = 0.1
    """The standard deviation of the first pseudo-inputs, about 0."""

    def __post_init__(self):
        _check_components(self)

    def init(self, key: Key, z: Array, x: Array) -> Tree:
        """Small random inputs."""
        shape = (self.components, *x.shape[1:])
        return {"x": self.spread * jax.random.normal(key, shape)}

    def log_prob(self, params, z, posterior):
        """The mixture of q(z|u_k)."""
        mean, logvar = posterior(params["x"])
        return mixture_log_prob(z, mean, logvar, jnp.zeros(len(mean)))

    def sample(self, params, keys, shape, posterior):
        """A pseudo-input, then its posterior."""
        key_k, key_z = (
            jax.vmap(jax.random.fold_in, (0, None))(keys, i) for i in (2, 3)
        )
        k = randint(key_k, self.components)
        mean, logvar = posterior(params["x"])
        return _drawn(key_z, mean[k], logvar[k])


@static
class FlowPrior:
    """What an invertible network takes to a standard Gaussian.

    Dinh et al. 2017, arXiv:1605.08803, equation 3; as a prior of a VAE Xu et al. 2019,
    arXiv:1905.13452.
    """

    flow: Any
    """A network of gengen.nets.flows: z -> (u, log |det ∂u/∂z|), and back."""

    def __post_init__(self):
        check_hashable(self.flow)

    def init(self, key: Key, z: Array, x: Array) -> Tree:
        """The flow's parameters."""
        return self.flow.init(key, z).get("params", {})

    def log_prob(self, params, z, posterior):
        """log N(f(z); 0, 1) + log |det ∂f/∂z|."""
        u, log_det = self.flow.apply({"params": params}, z)
        return unit_log_prob(u) + log_det

    def sample(self, params, keys, shape, posterior):
        """f⁻¹ of standard normal u."""
        u = normal(keys, shape)
        return self.flow.apply({"params": params}, u, reverse=True)[0]


def _check_components(prior) -> None:
    """BadInput for a mixture of nothing."""
    if prior.components < 1:
        raise BadInput(
            f"components={prior.components}: a {type(prior).__name__} has at least 1"
        )


def _drawn(keys: Array, mean: Array, logvar: Array) -> Array:
    return mean + jnp.exp(0.5 * logvar) * normal(keys, mean.shape[1:])
