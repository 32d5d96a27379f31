"""The networks of a hierarchical VAE: bottom-up features, top-down groups of latents.

Going up, an image becomes features at falling resolutions. Going down, from a learned
constant, each group of latents is drawn given those before it, and read into the state
h that the next group sees. Prior and posterior share the way down (ladder VAE,
Sønderby et al. 2016, arXiv:1602.02282); the posterior of a group is a correction of
its prior,

    q(z_l | x, z_<l) = N(μ_p + Δμ, (σ_p Δσ)²),

so that a group that knows nothing costs nothing. Vahdat and Kautz 2020,
arXiv:2007.03898, section 3.2 (NVAE); Child 2021, arXiv:2011.10650.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from gengen.conditions import Given, Nothing
from gengen.nets.conditioning import places
from gengen.nets.flows import soft_clamp
from gengen.nets.layers import check_divisible, layers_of_dtype, small, zeros
from gengen.nets.maps import Residual
from gengen.types import Array


class Group(NamedTuple):
    """One group of latents: its prior, its posterior, and what was drawn."""

    prior_mean: Array
    prior_logvar: Array
    mean: Array
    logvar: Array
    z: Array


class Ladder(nn.Module):
    """x, noise and c -> (features of p(x|z), a `Group` per group of latents)."""

    shape: tuple[int, int, int]
    """Shape of the features of one image."""
    groups: tuple[int, ...] = (2, 1)
    """Groups of latents at each resolution, the coarsest first."""
    latent: int = 4
    """Channels of the latents of a group."""
    channels: int = 32
    """Channels of the state h, a multiple of `norm_groups`."""
    blocks: int = 1
    """Residual blocks before each group, and at each resolution going up."""
    norm_groups: int = 8
    """Groups of each GroupNorm."""
    condition: Any = Nothing()
    """What c holds: labels and scalars, which enter the learned constant."""
    dtype: Any = None
    """Type of the layers: bfloat16, or None for float32."""

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The shape of the latents of each group, in the order in which they come."""
        height, width, _ = self.shape
        shapes = []
        for depth, num in zip(range(len(self.groups), 0, -1), self.groups, strict=True):
            sides = [check_divisible(side, depth, "Ladder") for side in (height, width)]
            shapes += [(*sides, self.latent)] * num
        return tuple(shapes)

    def setup(self):
        dense, conv, conv_transpose, norm = layers_of_dtype(
            self.dtype, self.norm_groups
        )
        width, every = self.channels, sum(self.groups)
        self.constant = self.param(
            "constant", zeros, (1, *self.latent_shapes[0][:2], width)
        )
        self.label = dense(width, use_bias=False)
        self.stem = conv(width, (3, 3))
        self.down = [conv(width, (3, 3), strides=2) for _ in self.groups]
        self.up = [conv_transpose(width, (4, 4), strides=(2, 2)) for _ in self.groups]
        self.rising = [self._blocks() for _ in self.groups]
        self.falling = [self._blocks() for _ in range(every)]
        # Priors are standard at first, and posteriors almost so: each KL is near 0.
        self.prior = [
            nn.Conv(2 * self.latent, (1, 1), kernel_init=zeros) for _ in range(every)
        ]
        self.correction = [
            nn.Conv(2 * self.latent, (1, 1), kernel_init=small) for _ in range(every)
        ]
        self.mix = [conv(width, (3, 3)) for _ in range(every)]
        self.read = [conv(width, (1, 1)) for _ in range(every)]
        self.norm = norm(width)
        self.out = nn.Conv(self.shape[-1], (3, 3))

    def _blocks(self):
        make = [Residual(self.norm_groups, self.dtype) for _ in range(self.blocks)]
        return nn.Sequential(make)

    def __call__(
        self,
        x: Array,
        noise: tuple[Array, ...],
        c: Given | None = None,
        train: bool = False,
    ) -> tuple[Array, list[Group]]:
        """The posterior's pass; noise: standard normal, one array per group."""
        del train
        rising, h = [], self.stem(x)
        for down, blocks in zip(self.down, self.rising, strict=True):
            h = blocks(down(h))
            rising.append(h)
        rising = rising[::-1]  # the coarsest first

        def posterior(i, resolution, h, mean, logvar):
            y = nn.silu(self.mix[i](jnp.concatenate([rising[resolution], h], -1)))
            shift, more = jnp.split(self.correction[i](y), 2, axis=-1)
            return mean + shift, logvar + soft_clamp(more, 5.0)

        return self._descend(posterior, noise, c)

    def generate(self, noise: tuple[Array, ...], c: Given | None = None) -> Array:
        """The prior's pass: features of z = μ_p + σ_p noise."""
        return self._descend(lambda i, r, h, *prior: prior, noise, c)[0]

    def _descend(self, posterior: Callable, noise, c) -> tuple[Array, list[Group]]:
        num, found, i = len(noise[0]), [], 0
        h = jnp.broadcast_to(self.constant, (num, *self.constant.shape[1:]))
        there = places(self.condition, c, num, h.shape[1:3])
        h = h if there is None else h + self.label(there)
        for resolution, groups in enumerate(self.groups):
            for _ in range(groups):
                h = self.falling[i](h)
                mean, logvar = jnp.split(self.prior[i](nn.silu(h)), 2, axis=-1)
                prior = mean, soft_clamp(logvar, 5.0)
                own = posterior(i, resolution, h, *prior)
                z = own[0] + jnp.exp(0.5 * own[1]) * noise[i]
                found.append(Group(*prior, *own, z))
                h, i = h + self.read[i](z), i + 1
            h = self.up[resolution](nn.silu(h))
        return self.out(nn.silu(self.norm(h))), found
