"""The loop that a user would write by hand for each family: the reference of speed."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Reference:
    """A family's bare program: how it would be written without the library.

    call: one network evaluation (params, state) -> array; bare: (params, state, key)
    -> samples [num, ...], or None with a reason where nobody has written one.
    """

    call: Callable
    bare: Callable | None
    reason: str = ""


def uniform_labels(model, key, num: int) -> dict:
    """Labels int32 [num] of the model's condition, drawn at once; {} without any."""
    import jax

    from gengen.conditions import labels_of

    labels = labels_of(model.condition)
    return (
        {labels.key: jax.random.randint(key, (num,), 0, labels.num)} if labels else {}
    )


def of_vae(model, num: int) -> Reference:
    """z ~ N(0, 1), uniform labels, one decoder call, the mean."""
    import jax
    import jax.numpy as jnp

    def decode(params, z, c):
        weights = {"params": params["vae"]["decoder"]}
        return model.decoder.apply(weights, z, c)

    def bare(params, state, key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, *model.latent_shape))
        features = decode(params, z, uniform_labels(model, key_label, num))
        return model.observation.mean(params["vae"]["likelihood"], features)

    def call(params, state):
        c = model.condition.zeros(num)
        return decode(params, jnp.zeros((num, *model.latent_shape)), c)

    return Reference(call, bare)


def of_gan(model, num: int) -> Reference:
    """z ~ N(0, 1), uniform labels, one generator call."""
    import jax
    import jax.numpy as jnp

    def generate(params, state, z, c):
        weights = {"params": params["generator"], **state["generator"]}
        return model.generator.apply(weights, z, c)

    def bare(params, state, key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, model.latent))
        return generate(params, state, z, uniform_labels(model, key_label, num))

    def call(params, state):
        c = model.condition.zeros(num)
        return generate(params, state, jnp.zeros((num, model.latent)), c)

    return Reference(call, bare)


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


def of_autoregressive(model, num: int) -> Reference:
    """A scan over the network's `decode`, and `jax.random.categorical`."""
    import jax
    import jax.numpy as jnp

    from gengen.observations.categorical import Categorical

    x = jnp.zeros((num, model.length, *model.head.symbol), jnp.int32)

    def bare(params, state, key):
        key, key_label = jax.random.split(key)
        c = uniform_labels(model, key_label, num)
        net, weights = model.net, {"params": params["autoregressive"]}

        def step(carry, t):
            symbol, cache = carry
            decoded = net.apply(weights, symbol, t, cache, c, method="decode")
            symbol = jax.random.categorical(jax.random.fold_in(key, t), decoded[0])
            return (symbol, decoded[1]), symbol

        cache = net.apply(weights, num, c, method="start")
        start = jnp.zeros(num, jnp.int32), cache
        _, x = jax.lax.scan(step, start, jnp.arange(model.length))
        return model.space.to_model(x.T.reshape(num, *model.space.shape))

    def call(params, state):
        c = model.condition.zeros(num)
        return model.features_of(params, x, c)

    plain = isinstance(model.head, Categorical) and model.order is None
    if plain and model.net.row_length is None:
        return Reference(call, bare)
    return Reference(call, None, "no bare program is written for this network and head")


def of_multiscale(model, num: int) -> Reference:
    """No bare program; a call is one pass of both networks."""
    import jax
    import jax.numpy as jnp

    batch = {model.space.key: jnp.zeros((num, *model.space.shape), jnp.uint8)}
    batch |= model.condition.zeros(num)

    def call(params, state):
        return model.log_likelihood(params, state, batch, jax.random.key(0))

    return Reference(call, None, "no bare program is written for two networks")


def reference(model, num: int, **keywords) -> Reference:
    """The model's bare program, by family."""
    from gengen.errors import BadInput
    from gengen.models.autoregressive import Autoregressive
    from gengen.models.diffusion import Diffusion
    from gengen.models.gan import GAN
    from gengen.models.multiscale import Multiscale
    from gengen.models.vae import VAE

    families = {
        VAE: of_vae,
        GAN: of_gan,
        Diffusion: of_diffusion,
        Autoregressive: of_autoregressive,
        Multiscale: of_multiscale,
    }
    if type(model) not in families:
        raise BadInput(
            f"a {type(model).__name__} draws no samples, so there is nothing to time: "
            "take the workdir of a generative model"
        )
    return families[type(model)](model, num, **keywords)
