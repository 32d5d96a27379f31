"""The loop that a user would write by hand for a diffusion model."""

from collections.abc import Callable

from .bare import Reference, uniform_labels


def of_diffusion(model, num: int, sampler=None) -> Reference:
    """Noise, then the steps as one would write them for this one model.

    Euler and Heun on the linear path are written out; of other values only the calls
    of the network, in a scan without the solver's arithmetic.
    """
    import jax
    import jax.numpy as jnp

    from gengen.diffusion.grids import Even
    from gengen.diffusion.guidance import Guidance
    from gengen.diffusion.paths import Linear
    from gengen.diffusion.process import Velocity
    from gengen.diffusion.solvers import Euler, Heun

    sampler = sampler or model.sampler
    scale, solver, shape = sampler.guidance.scale, sampler.solver, model.space.shape

    def network(params, z, t, c):
        weights = {"params": params["denoiser"]}
        r = model.net.apply(weights, z, jnp.full(num, t), c)
        return r[..., : z.shape[-1]]

    def guided(params, z, t, c):
        r = network(params, z, t, c)
        if scale == 1:
            return r
        null = network(params, z, t, model.condition.null(c))
        return null + scale * (r - null)

    def start(key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, *shape))
        return z, uniform_labels(model, key_label, num)

    def call(params, state):
        c = model.condition.zeros(num)
        return network(params, jnp.zeros((num, *shape)), 0.5, c)

    plan = sampler.plan(model.process)
    flow = model.process.path == Linear() and model.process.prediction == Velocity()
    plain = sampler.guidance == Guidance(scale) and not isinstance(scale, tuple)
    even = sampler.grid == Even() and not sampler.guides
    if flow and plain and even and solver in (Euler(), Heun()):
        steps = len(plan.times) - 1
        return Reference(call, written_out(guided, start, steps, solver == Heun()))
    if solver.traits.adaptive:
        return Reference(
            call, None, "an adaptive solver decides on its steps as it goes"
        )
    reason = "bare: the network's calls under one scan, without the solver's arithmetic"
    return Reference(call, calls_alone(guided, start, plan, solver), reason)


def written_out(guided, start, steps: int, is_heun: bool) -> Callable:
    """The steps of Euler or Heun on the linear path, from `start(key)`."""
    import jax
    import jax.numpy as jnp

    dt = 1.0 / steps

    def bare(params, state, key):
        x, c = start(key)

        def euler(x, t):
            return x - dt * guided(params, x, t, c), None

        def heun(x, t):
            v = guided(params, x, t, c)
            w = guided(params, x - dt * v, t - dt, c)
            return x - dt * (v + w) / 2, None

        step = heun if is_heun else euler
        return jax.lax.scan(step, x, 1.0 - jnp.arange(steps) * dt)[0]

    return bare


def calls_alone(guided, start, plan, solver) -> Callable:
    """As many calls of the network as the solver makes on the plan, in a scan."""
    import jax

    per_step = solver.nfe(2) - solver.nfe(1)
    more = solver.nfe(1) - per_step  # of the first step

    def bare(params, state, key):
        z, c = start(key)

        def step(z, t):
            for _ in range(per_step):
                z = 0.9 * z + 0.1 * guided(params, z, t, c)
            return z, None

        z, _ = jax.lax.scan(step, z, plan.times[:-1])
        for _ in range(more + plan.jump):
            z = 0.9 * z + 0.1 * guided(params, z, 0.5, c)
        return z

    return bare
