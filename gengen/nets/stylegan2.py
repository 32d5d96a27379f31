"""StyleGAN2: a mapping of z to styles, which scale the channels of each convolution.

    w = f(z, c),   s = A w,   y = d ⊙ conv(s ⊙ x, v),
    d_o = 1/√(Σ_{k,i} (s_i v_{k,i,o})² + ε)

v of unit scale, s a style [C] per example, k the taps. As a convolution is linear in
its kernel, that is the convolution of x with each example's own kernel s ⊙ v ⊙ d,
without making B kernels. If the x_i are independent of unit variance, so is y:
normalisation by expected statistics leaves no droplets, as instance norm does.

To each convolution's output, noise of one value a pixel is added, by a learned
strength; to the image, each resolution adds its own part ("skip" generator).

In training the styles of two z may be mixed, those of the coarse layers from one and of
the fine ones from the other, and the mean of w is tracked; in sampling w is drawn
towards that mean: w̄ + ψ (w - w̄), fidelity for variety.

Karras et al. 2020, arXiv:1912.04958, sections 2 to 4; mapping, mixing, noise and
truncation: 2019, arXiv:1812.04948, sections 2 and 3 and appendix B.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.conditions import Given, Labels, Nothing, Scalar
from gengen.errors import BadInput
from gengen.nets.conditioning import flat, refuse_parts
from gengen.nets.equalized import EqualDense, leaky, normalised, weight
from gengen.nets.layers import at_least_float32, check_divisible, normal
from gengen.nets.resample import blurred, enlarged
from gengen.nets.strided import convolution, doubling
from gengen.scan import fold_in
from gengen.types import Array


class Mapping(nn.Module):
    """(z [B, Z] or None, c) -> w [B, width]: the mapping network.

    z and the embedded c are each normalised; without both there is nothing to map.
    """

    width: int
    "Dimensions of w."
    layers: int = 2
    "Fully connected layers."
    condition: Any = Nothing()
    "What c holds: labels and scalars."

    @nn.compact
    def __call__(self, z: Array | None, c: Given | None, num: int) -> Array:
        refuse_parts(self.condition, (Labels, Scalar), "a StyleGAN2 network")
        parts, vector = [] if z is None else [normalised(z)], None
        vector = flat(self.condition, c, num)
        if vector is not None:
            parts.append(normalised(EqualDense(self.width, name="embed")(vector)))
        w = jnp.concatenate(parts, axis=-1)
        for _ in range(self.layers):
            w = leaky(EqualDense(self.width, rate=0.01)(w))
        return w


class ModulatedConv(nn.Module):
    """x [B, H, W, C], w [B, D] -> [B, H, W, features], or twice the size with `up`."""

    features: int
    "Channels of the result."
    taps: int = 3
    "The side of the kernel."
    up: bool = False
    "Enlarge the image by the filter (1, 3, 3, 1)."
    demodulate: bool = True
    "Whether the output is divided by its expected standard deviation."
    dtype: Any = None
    "Type of the convolution: bfloat16, or None for float32."

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        channels = x.shape[-1]
        style = EqualDense(channels, bias=1.0, name="style")(w)  # [B, C]
        kernel = weight(self, (self.taps, self.taps, channels, self.features))
        size = jnp.sum(kernel * kernel, axis=(0, 1))  # [C, F]
        x, v = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
        x = x * style[:, None, None].astype(x.dtype)
        plain = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        if self.up:
            y = blurred(doubling(x, v))
        else:
            y = convolution(x, v, (1, 1), "SAME", **plain)
        if self.demodulate:
            scale = jax.lax.rsqrt(style * style @ size + 1e-8)
            y = y * scale[:, None, None].astype(y.dtype)
        return y


class StyledLayer(nn.Module):
    """A modulated convolution, noise, bias and leaky ReLU."""

    features: int
    "Channels of the result."
    up: bool = False
    "Enlarge the image."
    dtype: Any = None
    "Type of the convolution: bfloat16, or None for float32."

    @nn.compact
    def __call__(self, x: Array, w: Array, keys: Array) -> Array:
        """keys: of the noise, [B], one per example, or [1], the same for all."""
        y = ModulatedConv(self.features, up=self.up, dtype=self.dtype)(x, w)
        strength = self.param("strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        shape = (*y.shape[1:3], 1)
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        return leaky(y + (strength * noise + bias).astype(y.dtype))


class StyleGAN2Generator(nn.Module):
    """z [B, latent] and c -> x [B, H, W, C]: mapping and synthesis.

    Collections: params, and "average", the tracked mean of w, which is updated when
    train=True. In training it draws from the stream of keys "noise".
    """

    shape: tuple[int, int, int]
    """Height, width and channels of an image."""
    channels: int = 32
    """Channels next to the image, doubled at each lower resolution."""
    max_channels: int = 512
    """The most channels of a resolution."""
    downsamples: int = 1
    """Doublings of the image; its sides are multiples of 2^downsamples."""
    style: int = 64
    """Dimensions of w."""
    mapping_layers: int = 2
    """Layers of the mapping."""
    mixing: float = 0.0
    """Probability in training that an example mixes the styles of two z."""
    condition: Any = Nothing()
    """What c holds: labels and scalars."""
    dtype: Any = None
    """Type of the convolutions: bfloat16, or None for float32."""

    def setup(self):
        if not 0 <= self.mixing <= 1:
            raise BadInput(f"mixing={self.mixing} is a probability: give 0 to 1")
        sides = self.shape[:2]
        name = "StyleGAN2Generator"
        self.low = [check_divisible(s, self.downsamples, name) for s in sides]
        self.mapping = Mapping(self.style, self.mapping_layers, self.condition)
        self.center = self.variable("average", "w", jnp.zeros, (self.style,))
        top = self.width(self.downsamples)
        self.first = self.param("constant", normal, (*self.low, top))
        layers = [StyledLayer(top, dtype=self.dtype)]
        for level in reversed(range(self.downsamples)):
            width = self.width(level)
            layers.append(StyledLayer(width, up=True, dtype=self.dtype))
            layers.append(StyledLayer(width, dtype=self.dtype))
        self.layers = layers
        self.to_image = [
            ModulatedConv(self.shape[2], 1, demodulate=False, dtype=self.dtype)
            for _ in range(self.downsamples + 1)
        ]
        self.offset = self.param("offset", nn.initializers.zeros, (self.shape[2],))

    def width(self, level: int) -> int:
        """Channels at a level, 0 being the image's."""
        return min(self.max_channels, self.channels * 2**level)

    @property
    def num_styles(self) -> int:
        """How many layers take a style: convolutions, and the last map to pixels."""
        return 2 * self.downsamples + 2

    def __call__(self, z: Array, c: Given | None = None, train: bool = False) -> Array:
        """The noise images are drawn in training, and fixed ones otherwise."""
        keys = jax.random.split(self.make_rng("noise"), len(z)) if train else None
        return self.synthesize(self.styles(z, c, train), keys)

    def styles(self, z: Array, c: Given | None = None, train: bool = False) -> Array:
        """w of every layer, [B, num_styles, style]; mixed and tracked in training."""
        w = self.mapping(z, c, len(z))
        if train and self.is_mutable_collection("average"):
            mean = jax.lax.stop_gradient(jnp.mean(w, axis=0))
            old = self.center.value
            self.center.value = old + (1 - 0.998) * (mean - old)
        w = jnp.broadcast_to(w[:, None], (len(w), self.num_styles, w.shape[-1]))
        if train and self.mixing:
            key = self.make_rng("noise")
            key_z, key_layer, key_mixed = jax.random.split(key, 3)
            other = self.mapping(jax.random.normal(key_z, z.shape), c, len(z))
            first = jax.random.randint(key_layer, (len(z), 1), 1, self.num_styles)
            mixed = jax.random.bernoulli(key_mixed, self.mixing, (len(z), 1))
            late = (jnp.arange(self.num_styles) >= first) & mixed
            w = jnp.where(late[..., None], other[:, None], w)
        return w

    def synthesize(self, w: Array, keys: Array | None = None) -> Array:
        """Images of styles w [B, num_styles, style].

        keys: of the noise images, [B]; None for fixed ones, the same for all examples.
        """
        keys = jax.random.key(0)[None] if keys is None else keys

        h = jnp.broadcast_to(self.first, (len(w), *self.first.shape))
        h = self.layers[0](h, w[:, 0], fold_in(keys, 0))
        x = at_least_float32(self.to_image[0](h, w[:, 1]))
        for level in range(self.downsamples):
            for i in (2 * level + 1, 2 * level + 2):
                h = self.layers[i](h, w[:, i], fold_in(keys, i))
            part = self.to_image[level + 1](h, w[:, 2 * level + 3])
            x = enlarged(x) + at_least_float32(part)
        return x + self.offset
