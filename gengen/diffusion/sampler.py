"""What a sampler does: a solver along a grid of times, and what guides it."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gengen.diffusion.grids import Even, Grid, starting_at, times_of
from gengen.diffusion.guidance import Guidance
from gengen.diffusion.process import Process, usable_times
from gengen.diffusion.solvers import Euler, Solver, check_solver
from gengen.errors import BadInput
from gengen.types import Array, static

# Guides that divide by a begin at this b/a: before, the error of a network's gradient
# grows with it. RMS error of the unseen half of digits when starting at b/a = 1000:
# 1.27; at 50 or 20: 0.50.
MOST_NOISE = 50.0


class Plan(NamedTuple):
    """A sampler's times, all known, and what holds at their ends."""

    times: Array  # [steps + 1], falling
    first_b: float  # b at the first
    last_a: float  # a at the last
    jump: bool  # whether they stop short of the data: one more call is due


@static
class Sampler:
    """From noise to data, as a value: the defaults of a model, or one call's own."""

    solver: Solver = Euler()
    """One step from time t to time s < t."""
    grid: Grid = Even()
    """The times."""
    steps: int = 50
    """The number of steps."""
    guidance: Guidance = Guidance()
    """How the condition is weighed."""
    guides: tuple = ()
    """What else wraps the network, each a `guidance.Guide`, one after the other."""
    strength: float = 1.0
    """The fraction of the schedule to run, in (0, 1]; sampling starts at that time
    instead of t_max, from noised data."""

    def __post_init__(self):
        if not 0 < self.strength <= 1:
            raise BadInput(
                f"strength={self.strength}: it must be above 0, and 1 at most"
            )
        check_solver(self.solver)
        if not callable(self.grid):
            raise BadInput(
                f"grid={self.grid!r} is not a grid: give a value of "
                "gengen.diffusion.grids, such as KarrasGrid()"
            )
        if self.solver.traits.adaptive and any(
            isinstance(guide, tuple) for guide in self.guides
        ):
            raise BadInput(
                f"{self.solver} takes each row by itself, and a guide that holds "
                "arrays takes all at once: take a solver of fixed steps, or Measured"
            )

    def replace(self, **changes) -> "Sampler":
        """The sampler with other values, its own or its guidance's, by name.

        >>> Sampler().replace(steps=10, scale=2.0).guidance.scale
        2.0
        """
        own, inner = ({f.name for f in dataclasses.fields(k)} for k in (self, Guidance))
        if unknown := sorted(changes.keys() - own - inner):
            raise BadInput(
                f"a sampler has no {unknown[0]}: it has {', '.join(sorted(own))}, and "
                f"its guidance {', '.join(sorted(inner))}"
            )
        of_guidance = {name: changes.pop(name) for name in inner & changes.keys()}
        changed = dataclasses.replace(self, **changes)
        guidance = dataclasses.replace(changed.guidance, **of_guidance)
        return dataclasses.replace(changed, guidance=guidance)

    def plan(self, process: Process) -> Plan:
        """The times along a process, as known numbers. BadInput if there are none."""
        path = process.path
        low, high = usable_times(process)
        with jax.ensure_compile_time_eval():
            if self.solver.traits.divides_by_a and path.a(jnp.float32(high)) == 0:
                high = 1.0 - 1e-3
            if any(guide.divides_by_a for guide in self.guides):
                most = jnp.float32(MOST_NOISE)
                high = min(high, float(path.time_of_ratio(jnp.ones_like(most), most)))
            times = times_of(self.grid, path, self.steps, (low, high))
            if self.strength < 1:
                start = times[-1] + self.strength * (times[0] - times[-1])
                times = starting_at(times, start, path)
            first, last = times[0], times[-1]
            ends = float(path.b(first)), float(path.a(last)), bool(path.b(last) > 0)
        return Plan(times, *ends)
