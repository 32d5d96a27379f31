"""What training maximises: the ELBO with its weights, or IWAE's bound.

    objective   per example, nats
    ELBO        log p(x|z) - β max(KL, free) - γ TC
    IWAE        log 1/K Σ_k w_k, with the doubly reparameterised gradient

An objective is a `static` value. It is called with the problem as a function of what
moves, so that each objective decides which gradients pass.
"""

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.latent.bounds import (
    Latent,
    doubly_reparameterized,
    elbo,
    free_bits,
    log_weight,
    total_correlation,
)
from gengen.objective import Weight, weight_at
from gengen.types import Array, Key, Metrics, Params, State, static

# (params, mean, logvar) -> (z -> log p(x|z), z₀ -> (z, surplus)).
Problem = Callable[[Params, Array, Array], tuple[Callable[[Array], Array], Latent]]


class Objective(Protocol):
    """A lower bound, or what is maximised in its place."""

    def __call__(
        self,
        params: Params,
        state: State,
        key: Key,
        gaussian: tuple[Array, Array],
        problem: Problem,
    ) -> tuple[Array, Metrics]:
        """(a scalar to be minimised, metrics); gaussian: mean and logvar of q(z₀|x)."""


@static
class ELBO:
    """The evidence lower bound; beta, free nats and total correlation change its terms.

    beta: Higgins et al. 2017; annealing: Bowman et al. 2016, arXiv:1511.06349, section
    3.1; free bits: Kingma et al. 2016, arXiv:1606.04934, appendix C.8; total
    correlation: Chen et al. 2018, arXiv:1802.04942, equation 4 with β = 1 + γ.
    """

    beta: Weight = 1.0
    """The weight of the KL term: a number, or a static function of the step, such as
    `Ramp(0.0, 1.0, 1_000)`."""
    free_nats: float = 0.0
    """The KL per example up to which the KL term costs nothing."""
    total_correlation: float = 0.0
    """γ, the weight of the total correlation of the latents, which are vectors."""

    def __post_init__(self):
        for name in ("free_nats", "total_correlation"):
            if (value := getattr(self, name)) < 0:
                raise BadInput(f"{name}={value}: it must be at least 0")

    def __call__(self, params, state, key, gaussian, problem):
        """-ELBO, mean over the batch."""
        mean, logvar = gaussian
        noise = jax.random.normal(key, mean.shape)
        log_prob, latent = problem(params, mean, logvar)
        beta = weight_at(self.beta, state)
        bound, (expected, kl) = elbo(log_prob, mean, logvar, noise, beta, latent)
        metrics = {"reconstruction": -jnp.mean(expected), "kl": jnp.mean(kl)}
        value = -jnp.mean(bound)
        if self.free_nats:
            value = value + jnp.mean(beta * (free_bits(kl, self.free_nats) - kl))
        if self.total_correlation:
            z, _ = latent(mean + jnp.exp(0.5 * logvar) * noise)
            metrics["total_correlation"] = total_correlation(z, mean, logvar)
            value = value + self.total_correlation * metrics["total_correlation"]
        return value, metrics


@static
class IWAE:
    """The importance-weighted bound. Burda et al. 2016; Tucker et al. 2019.

    Burda, Grosse and Salakhutdinov, arXiv:1509.00519, equation 8; the gradient:
    arXiv:1810.04152, equation 8.
    """

    samples: int
    """K, at least 2; with one the bound is the ELBO."""

    def __post_init__(self):
        if self.samples < 2:
            raise BadInput(
                f"IWAE({self.samples}): it takes at least 2 draws, or ELBO()"
            )

    def __call__(self, params, state, key, gaussian, problem):
        """-log 1/K Σ w, mean over the batch."""
        mean, logvar = gaussian
        noise = jax.random.normal(key, (self.samples, *mean.shape))
        own_mean, own_logvar = stopped = jax.lax.stop_gradient(gaussian)

        def log_weights(z, rest):
            params, context = rest  # of the flow, which sees the encoder's gradient
            log_prob, latent = problem(params, *context)

            def one(z):
                own_noise = (z - own_mean) * jnp.exp(-0.5 * own_logvar)
                return log_weight(log_prob, *stopped, own_noise, latent)

            return jax.vmap(one)(z)

        z = mean + jnp.exp(0.5 * logvar) * noise
        bound = doubly_reparameterized(log_weights, z, (params, gaussian))
        return -jnp.mean(bound), {}
