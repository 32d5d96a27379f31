"""The noise of all steps of a solver, as a value that can be handed to `solve`."""

import chex
import jax
import jax.numpy as jnp

from gengen.diffusion.solvers import Solver
from gengen.errors import BadInput
from gengen.scan import fold_in
from gengen.types import Array, Tree


def step_noise(solver: Solver, keys: Array | None, z: Array, steps: int) -> Tree:
    """The noise that `solve` draws from these keys in `steps` steps, as its argument.

    >>> from gengen.diffusion.solvers import DDIM, DDPM
    >>> keys, z = jax.random.split(jax.random.key(0), 4), jnp.zeros((4, 2))
    >>> step_noise(DDPM(), keys, z, steps=10).shape
    (10, 4, 2)
    >>> step_noise(DDIM(), None, z, steps=10)
    ()

    Args:
        solver: the solver of each step.
        keys: one key per row [B].
        z: the samples [B, ...], whose shape and type the noise has.
        steps: the number of steps of the grid.

    Returns:
        What `solver.draw` returns, with a leading axis of `steps`.
    """

    def drawn(i):
        return solver.draw(None if keys is None else fold_in(keys, i), z)

    return jax.vmap(drawn)(jnp.arange(steps))


def check_noise(
    solver: Solver, keys: Array | None, noise: Tree | None, z: Array, steps: int
) -> None:
    """Raises BadInput unless the solver has what it draws from: keys [B], or the noise.

    >>> from gengen.diffusion.solvers import DDIM
    >>> check_noise(DDIM(), None, None, jnp.zeros((4, 2)), steps=10)

    Args:
        solver: the solver of each step.
        keys: one key per row [B], or None.
        noise: as `step_noise` makes it, or None.
        z: the samples [B, ...].
        steps: the number of steps of the grid.
    """
    if keys is not None:
        chex.assert_shape(keys, z.shape[:1])
    if noise is None:
        if keys is None and not solver.traits.deterministic:
            raise BadInput(
                f"{solver} draws noise: give it keys [{len(z)}], or the noise of its "
                "steps as `step_noise` makes it"
            )
        return
    if keys is not None:
        raise BadInput("keys and noise were given, and one of them makes the noise")
    some = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(z)))
    wanted = jax.eval_shape(lambda k, z: step_noise(solver, k, z, steps), some, z)
    if jax.tree.map(jnp.shape, noise) != jax.tree.map(jnp.shape, wanted):
        raise BadInput(
            f"noise of shapes {jax.tree.map(jnp.shape, noise)} for {steps} steps of "
            f"{solver}, which takes {jax.tree.map(jnp.shape, wanted)}"
        )
