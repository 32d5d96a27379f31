"""What a solver is: one step of a sampler, from time t to time s < t.

A solver is a `static` dataclass. Its facts are `traits` and `nfe(steps)`, and a step is

    noise = solver.draw(keys, z)                  the noise of one step; () for none
    z, state = solver.step(noise, predict, process, z, state, t, s)

with the pair of times t > s (scalars), never an index into a table, and the function
`predict(z, t) -> r̂`. Noise is an argument: `draw` is the only place that reads keys.
`state = solver.init(z, steps)` is what a solver keeps from one step to the next.

Deterministic solvers also run backwards (s > t), mapping data to noise.
"""

from collections.abc import Callable
from typing import Protocol

from gengen.diffusion.process import Process
from gengen.errors import BadInput
from gengen.scan import normal
from gengen.types import Array, Tree, static


@static
class Traits:
    """What a sampler must know of a solver before it takes a step."""

    divides_by_a: bool = False
    """A step divides by a(t), so the grid cannot begin where a(t) = 0."""
    deterministic: bool = True
    """No noise is drawn: `draw` returns (), keys are not read, steps run backwards."""
    wants_variance: bool = False
    """`predict` must return the learned variances behind r̂ as well."""
    has_memory: bool = False
    """The state changes from step to step, so steps cannot be taken out of order."""
    adaptive: bool = False
    """The number of network calls is decided row by row: `nfe` is None."""


class Solver(Protocol):
    """One step of a sampler. The defaults are those of a solver without memory.

    A solver that inherits them writes only `step`: one network call per step, no state,
    and, unless its traits are deterministic, one normal array of z's shape per step.
    """

    traits = Traits()

    def nfe(self, steps: int) -> int | None:
        """The number of function evaluations (network calls) of `steps` steps.

        Args:
            steps: the number of steps, at least 1.

        Returns:
            None if the solver is adaptive.
        """
        return steps

    def init(self, z: Array, steps: int) -> Tree:
        """The state before the first of `steps` steps.

        Args:
            z: the samples at the first time [B, ...].
            steps: the number of steps of the grid.
        """
        return ()

    def draw(self, keys: Array | None, z: Array) -> Tree:
        """The noise of one step, of z's type: row i is a function of keys[i] alone.

        Args:
            keys: one key per row [B]; not read by a deterministic solver.
            z: the samples [B, ...], whose shape and type the noise has.
        """
        return () if self.traits.deterministic else normal_like(keys, z)

    def step(
        self,
        noise: Tree,
        predict: Callable,
        process: Process,
        z: Array,
        solver_state: Tree,
        t: Array,
        s: Array,
    ) -> tuple[Array, Tree]:
        """(z at time s, the next state).

        Args:
            noise: what `draw` returns.
            predict: the network, (z, t) -> r̂ [B, ...].
            process: the path, and what the network predicts.
            z: the samples at time t [B, ...].
            solver_state: what `init` or the step before returned.
            t: the time of z, a scalar in [0, 1].
            s: the time to reach, a scalar in [0, t).
        """
        ...


def normal_like(keys: Array, z: Array) -> Array:
    """Standard normal noise of z's shape and type; row i is a function of keys[i].

    >>> import jax, jax.numpy as jnp
    >>> keys = jax.random.split(jax.random.key(0), 3)
    >>> normal_like(keys, jnp.zeros((3, 2))).shape
    (3, 2)

    Args:
        keys: one key per row [B].
        z: an array [B, ...], floats.
    """
    return normal(keys, z.shape[1:]).astype(z.dtype)


def check_solver(solver: Solver) -> None:
    """Raises BadInput if `solver` is not a value with a method `step`.

    >>> check_solver("heun")
    Traceback (most recent call last):
        ...
    gengen.errors.BadInput: solver='heun' is not a solver: give a value of \
gengen.diffusion.solvers, such as Heun()

    Args:
        solver: what stands where a solver is wanted.
    """
    if isinstance(solver, type) or not hasattr(solver, "step"):
        named = solver.__name__ if isinstance(solver, type) else repr(solver)
        raise BadInput(
            f"solver={named} is not a solver: give a value of "
            "gengen.diffusion.solvers, such as Heun()"
        )
