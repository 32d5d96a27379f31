"""DCGAN: an all-convolutional generator and discriminator.

Strided (transposed) convolutions, BatchNorm except at the generator's output and the
discriminator's input, ReLU going up, leaky ReLU (0.2) going down, tanh at the output,
weights from N(0, 0.02²). Radford, Metz and Chintala 2016, arXiv:1511.06434.

A class label enters the generator as an embedding beside z, and the discriminator as
the inner product of its last features with the label's embedding (the projection
discriminator, Miyato and Koyama 2018, arXiv:1802.05637, equation 3).
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from gengen.nets.layers import dcgan_normal, halvings, layers
from gengen.types import Array


class DCGANGenerator(nn.Module):
    """z [B, latent] (and label [B]) -> image [B, H, W, C] in (-1, 1).

    `levels` doublings from H/2^levels; H and W must be multiples of 2^levels.
    Collections: params, batch_stats (updated when train=True). `axis_name` averages
    the batch statistics over devices under pmap.
    """

    shape: tuple[int, int, int]
    channels: int = 64
    levels: int = 2
    num_classes: int = 0
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, train: bool = False):
        def norm():
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )

        dense, _, conv_transpose, _ = layers(self.dtype)
        height, width, out = self.shape
        low = [halvings(s, self.levels, "DCGANGenerator") for s in (height, width)]
        if self.num_classes:
            embed = nn.Embed(self.num_classes, z.shape[-1])(label)
            z = jnp.concatenate([z, embed], axis=-1)
        top = self.channels * 2 ** (self.levels - 1)
        h = dense(low[0] * low[1] * top, use_bias=False, kernel_init=dcgan_normal)(z)
        h = nn.relu(norm()(h.reshape(-1, *low, top)))
        for level in reversed(range(self.levels)):
            last = level == 0
            features = out if last else self.channels * 2 ** (level - 1)
            h = conv_transpose(
                features, (4, 4), (2, 2), use_bias=last, kernel_init=dcgan_normal
            )(h)
            h = jnp.tanh(h.astype(jnp.float32)) if last else nn.relu(norm()(h))
        return h


class DCGANDiscriminator(nn.Module):
    """Image [B, H, W, C] (and label [B]) -> logit [B] of being real.

    `levels` halvings, channels doubling from `channels`; H and W must be multiples of
    2^levels. Real and fake batches go through in separate passes, each with its own
    batch statistics. batch_norm=False scores every image by itself, as a gradient
    penalty wants it. The last features are sown as "features".
    """

    channels: int = 64
    levels: int = 2
    num_classes: int = 0
    batch_norm: bool = True
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, train: bool = False):
        for side in x.shape[1:3]:
            halvings(side, self.levels, "DCGANDiscriminator")
        _, conv, _, _ = layers(self.dtype)
        h = x
        for level in range(self.levels):
            features = self.channels * 2**level
            normed = self.batch_norm and level > 0
            h = conv(
                features, (4, 4), 2, use_bias=not normed, kernel_init=dcgan_normal
            )(h)
            if normed:
                h = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=0.9,
                    axis_name=self.axis_name,
                    dtype=self.dtype,
                )(h)
            h = nn.leaky_relu(h, 0.2)
        h = h.reshape(h.shape[0], -1).astype(jnp.float32)
        self.sow("intermediates", "features", h)
        logit = nn.Dense(1, kernel_init=dcgan_normal)(h)[:, 0]
        if self.num_classes:
            embed = nn.Embed(self.num_classes, h.shape[-1])(label)
            logit = logit + jnp.sum(embed * h, axis=-1)
        return logit
