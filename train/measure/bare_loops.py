"""The loop that a user would write by hand for each family: the reference of speed."""

from .bare import Reference, uniform_labels
from .bare_diffusion import of_diffusion


def of_vae(model, num: int) -> Reference:
    """z ~ N(0, 1), uniform labels, one decoder call, the mean."""
    import jax
    import jax.numpy as jnp

    from gengen.latent.priors import UnitGaussian
    from gengen.observations.observation import decoded

    def decode(params, z, c):
        weights = {"params": params["vae"]["decoder"]}
        output = model.decoder.apply(weights, z, c)
        return decoded(model.observation, output, model.space.shape)

    def bare(params, state, key):
        key_z, key_label = jax.random.split(key)
        z = jax.random.normal(key_z, (num, *model.latent_shape))
        features = decode(params, z, uniform_labels(model, key_label, num))
        return model.observation.mean(params["vae"]["likelihood"], features)

    def call(params, state):
        c = model.condition.zeros(num)
        return decode(params, jnp.zeros((num, *model.latent_shape)), c)

    if model.prior != UnitGaussian():
        return Reference(call, None, f"nobody wrote one for {model.prior}")
    if model.observation.sequential:
        return Reference(call, None, f"nobody wrote one for {model.observation}")
    return Reference(call, bare)


def of_semi_supervised(model, num: int) -> Reference:
    """The generative model's own program."""
    inner = reference(model.generative, num)

    def of_inner(program):
        return lambda params, *more: program(params["m2"]["generative"], *more)

    bare = of_inner(inner.bare) if inner.bare else None
    return Reference(of_inner(inner.call), bare, inner.reason)


def of_hierarchical_vae(model, num: int) -> Reference:
    """Noise for each group, uniform labels, one pass down, the mean."""
    import jax
    import jax.numpy as jnp

    from gengen.observations.observation import decoded

    def generate(params, noise, c):
        weights = {"params": params["hvae"]["net"]}
        return model.net.apply(weights, noise, c, method="generate")

    def bare(params, state, key):
        shapes = model.net.latent_shapes
        *keys, key_label = jax.random.split(key, len(shapes) + 1)
        noise = [
            jax.random.normal(key, (num, *shape))
            for key, shape in zip(keys, shapes, strict=True)
        ]
        c = uniform_labels(model, key_label, num)
        output = generate(params, noise, c)
        features = decoded(model.observation, output, model.space.shape)
        return model.observation.mean(params["hvae"]["likelihood"], features)

    def call(params, state):
        noise = [jnp.zeros((num, *shape)) for shape in model.net.latent_shapes]
        return generate(params, noise, model.condition.zeros(num))

    return Reference(call, bare)


def of_normalizing_flow(model, num: int) -> Reference:
    """u ~ N(0, 1), uniform labels, one call backwards, the inverse logit."""
    import jax
    import jax.numpy as jnp

    from gengen.models.normalizing_flow import unsquash
    from gengen.spaces import Images

    def backward(params, u, c):
        return model.flow.apply({"params": params["flow"]}, u, c or None, reverse=True)

    def bare(params, state, key):
        key_u, key_label = jax.random.split(key)
        u = jax.random.normal(key_u, (num, *model.latent_shape))
        x, _ = backward(params, u, uniform_labels(model, key_label, num))
        x = x.reshape(num, *model.space.shape)
        if not isinstance(model.space, Images):
            return x
        most = 1.0 + 1.0 / (model.space.size - 1)
        return unsquash(x, most, model.alpha)

    def call(params, state):
        u = jnp.zeros((num, *model.latent_shape))
        return backward(params, u, model.condition.zeros(num))[0]

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


def of_stylegan(model, num: int) -> Reference:
    """z ~ N(0, 1), uniform labels, a mapping, and a synthesis with noise."""
    import jax
    import jax.numpy as jnp

    def generate(params, state, z, c, keys):
        weights = {"params": params["generator"], **state["generator"]}
        w = model.generator.apply(weights, z, c, method="styles")
        return model.generator.apply(weights, w, keys, method="synthesize")

    def bare(params, state, key):
        key_z, key_label, key_noise = jax.random.split(key, 3)
        z = jax.random.normal(key_z, (num, model.latent))
        c = uniform_labels(model, key_label, num)
        return generate(params, state, z, c, jax.random.split(key_noise, num))

    def call(params, state):
        c, keys = model.condition.zeros(num), jax.random.split(jax.random.key(0), num)
        return generate(params, state, jnp.zeros((num, model.latent)), c, keys)

    return Reference(call, bare)


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


def of_coded(model, num: int) -> Reference:
    """The prior's own bare program, a row of the book per code, one decoder call."""
    from gengen.observations.observation import decoded

    inner, outer = of_autoregressive(model.model, num), model.autoencoder

    def decode(state, codes):
        own = state["frozen"][model.name]
        params, book = own.params["vqvae"], own.state["book"]
        z = outer.quantizer.embed(book, codes)
        output = outer.decoder.apply({"params": params["decoder"]}, z, {})
        features = decoded(outer.observation, output, outer.space.shape)
        return outer.observation.mean(params["likelihood"], features)

    def call(params, state):
        return inner.call(params, state), decode(state, model.model.space.zeros(num))

    if inner.bare is None:
        return Reference(call, None, inner.reason)
    return Reference(call, lambda p, state, key: decode(state, inner.bare(p, {}, key)))


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
    from gengen.models.combinators.latent import Coded
    from gengen.models.combinators.semisupervised import SemiSupervised
    from gengen.models.diffusion import Diffusion
    from gengen.models.gan import GAN
    from gengen.models.hvae import HierarchicalVAE
    from gengen.models.multiscale import Multiscale
    from gengen.models.normalizing_flow import NormalizingFlow
    from gengen.models.stylegan import StyleGAN
    from gengen.models.vae import VAE

    families = {
        VAE: of_vae,
        HierarchicalVAE: of_hierarchical_vae,
        SemiSupervised: of_semi_supervised,
        NormalizingFlow: of_normalizing_flow,
        GAN: of_gan,
        StyleGAN: of_stylegan,
        Diffusion: of_diffusion,
        Autoregressive: of_autoregressive,
        Multiscale: of_multiscale,
        Coded: of_coded,
    }
    if type(model) not in families:
        raise BadInput(
            f"a {type(model).__name__} draws no samples, or nobody wrote its bare "
            f"program: take the workdir of {', '.join(x.__name__ for x in families)}"
        )
    return families[type(model)](model, num, **keywords)
