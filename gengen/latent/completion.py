"""What was seen of x, completed by inference in z.

    p(x_rest | x_seen) = ∫ p(x_rest | z) p(z | x_seen) dz

An encoder has seen whole images only, so p(z | x_seen) is found without it: chains go
from the prior p(z) to p(z) p(x_seen | z) by annealed importance sampling, and the end
of one of several is selected by its weight. That is exact in the limit of many
particles, and of many moves: the weights account for every temperature on the way.

Neal 2001, Statistics and Computing 11, 125; Wu et al. 2017, arXiv:1611.04273.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gengen.autoregressive.clamping import check_beginning, known_mask, selected
from gengen.latent.evidence import annealed, temperatures
from gengen.losses.likelihood import per_example
from gengen.scan import fold_in, sample_keys
from gengen.types import Array, Completes, Completion, Tree

LEAPFROGS = 5  # steps of one Hamiltonian move


def posterior_particles(
    keys: Array,
    rows: Tree,
    draw: Callable[[Array], Array],
    log_prior: Callable[[Array], Array],
    log_given: Callable[[Tree, Array], Array],
    particles: int,
    moves: int,
    leapfrogs: int = LEAPFROGS,
) -> tuple[Array, Array]:
    """(z [B, P, *latent], log w [B, P]): weighted draws of p(z | what a row says).

    Args:
        keys: [B] keys; row i depends on keys[i] alone.
        rows: what was seen, a tree of arrays [B, ...].
        draw: keys [P] -> z [P, *latent] of the prior.
        log_prior: z [P, *latent] -> log p(z) [P].
        log_given: (one row of `rows`, z) -> log p(seen | z) [P].
        particles: P, the chains of a row.
        moves: Hamiltonian moves of each chain, at least 1.
        leapfrogs: steps of a move.

    >>> rows, keys = jnp.zeros((1, 1)), jax.random.split(jax.random.key(0), 1)
    >>> prior = lambda z: -0.5 * jnp.sum(z**2, 1) - 0.5 * jnp.log(2 * jnp.pi)
    >>> draw = lambda keys: jax.vmap(lambda key: jax.random.normal(key, (1,)))(keys)
    >>> def nothing_seen(row, z):
    ...     return 0.0 * z[:, 0]
    >>> z, log_w = posterior_particles(keys, rows, draw, prior, nothing_seen, 3, 2)
    >>> z.shape, log_w.tolist()
    ((1, 3, 1), [[0.0, 0.0, 0.0]])
    """
    chex.assert_tree_shape_prefix(rows, keys.shape)

    def one(key, row):
        def start(key):
            return draw(jax.random.split(key, particles))

        def log_joint(z):
            return log_prior(z) + log_given(row, z)

        steps = temperatures(moves)
        z, log_w, _ = annealed(key, start, log_prior, log_joint, steps, leapfrogs)
        return z, log_w

    return jax.vmap(one)(keys, rows)


class CompletesByLatent(Completes):
    """`complete` of a model with a prior of z and a p(x|z) of every number of x.

    It has `space`, `condition`, `observation`, `sample_latent`, and

        log_prior(params, z)                            [B] nats
        observed_data(batch, key)                       what p(x|z) is of, [B, *shape]
        log_probs_given(params, z, data, c)             [B, *shape] nats
        draw_given(params, keys, z, c, data, observed)  x [B, *shape]
    """

    def complete(
        self,
        params,
        state,
        key,
        batch,
        observed,
        *,
        start_index=0,
        particles: int = 8,
        moves: int = 60,
    ) -> Completion:
        """Draws of p(x | x_observed, c), by annealed chains in z; what is seen stays.

        Args, beside those of `sample`:
            batch: the data, of which the observed part is read, and the condition.
            observed: bool, of a shape that broadcasts to [B, *shape]; known values. Of
                pixels that are read as a whole all channels, and of those that are
                drawn one after the other a beginning.
            particles: chains per row, of which one is selected by its weight.
            moves: Hamiltonian moves of a chain, of five decoder calls and a pilot's
                five; a sharp likelihood of many numbers needs more.
        """
        key_observe, key = jax.random.split(key)
        data, c = self.observed_data(batch, key_observe), self.condition.read(batch)
        mask = known_mask(self.space, observed, len(data))
        check_beginning(self.observation, mask)
        keys, mask = sample_keys(key, len(data), start_index), jnp.asarray(mask)

        def log_given(row, z):
            data, mask, c = jax.tree.map(lambda a: jnp.stack([a] * len(z)), row)
            return per_example(mask * self.log_probs_given(params, z, data, c))

        def draw(keys):
            return self.sample_latent(params, state, keys)

        def log_prior(z):
            return self.log_prior(params, z)

        rows = data, mask, c
        chains = keys, rows, draw, log_prior, log_given, particles, moves
        z, effective = selected(fold_in(keys, 1), *posterior_particles(*chains))
        x = self.draw_given(params, fold_in(keys, 2), z, c, data, mask)
        return Completion(x, effective)

    def completion_nfe(self, particles: int = 8, moves: int = 60) -> int:
        """Decoder calls per completion, gradients among them.

        A move takes two per step, two for its acceptance and one for the weight; and
        the pilot run takes as many.
        """
        return 2 * particles * moves * (2 * LEAPFROGS + 3)
