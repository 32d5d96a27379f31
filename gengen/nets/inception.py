"""Inception-v3 of the FID convention: images [B, H, W, C] to features and logits.

The network in whose features the Fréchet Inception distance is defined (Szegedy et
al. 2016, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500): TensorFlow's graph
of 2015-12-05 with 1008 classes, whose weights travel as the PyTorch state dict
`pt_inception-2015-12-05-6726825d.pth`. It differs from torchvision's Inception-v3:
average pools leave the padding out of the mean, and the last block pools by the
maximum. `from_torch` turns that state dict into variables; inference only.

The architecture is a table. A block is named branches whose outputs are concatenated;
a branch is a chain of steps: a convolution, a fork (two convolutions, concatenated),
or a pool. Submodules bear the state dict's names, so that loading is a rename.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.types import Array, Tree, static

SIDE = 299
CLASSES = 1008

# Accelerators would round float32 products to TF32 or bfloat16, and FID with them.
EXACT = jax.lax.Precision.HIGHEST

# ---------------------------------------------------------------- preprocessing


def bilinear(image: Array, y: Array, x: Array) -> Array:
    """Image [B, H, W, C] at rows y [h] and columns x [w], in pixels: [B, h, w, C].

    Beyond the last row or column the image repeats it; y and x are not negative.
    """

    def interpolate(image, at, axis):
        low = jnp.floor(at).astype(jnp.int32)
        high = jnp.minimum(low + 1, image.shape[axis] - 1)
        shape = [-1 if a == axis else 1 for a in range(image.ndim)]
        before, after = (jnp.take(image, i, axis) for i in (low, high))
        return before + (after - before) * (at - low).reshape(shape)

    return interpolate(interpolate(image, x, 2), y, 1)


def tensorflow_1(image: Array) -> Array:
    """Image [B, H, W, C] in [0, 255] -> [B, 299, 299, C]: resized, (x − 128)/128.

    Output pixel i reads at i·H/299, as TF1's ResizeBilinear did (align_corners=False,
    corners of pixels on the grid): the graph of Heusel et al. 2017, arXiv:1706.08500,
    and torch-fidelity.
    """
    image = image.astype(jnp.float32)
    y, x = (jnp.arange(SIDE) * (side / SIDE) for side in image.shape[1:3])
    return (bilinear(image, y, x) - 128.0) / 128.0


def pytorch(image: Array) -> Array:
    """Image [B, H, W, C] in [0, 255] -> [B, 299, 299, C]: resized, 2x/255 − 1.

    Output pixel i reads at max(0, (i + ½)·H/299 − ½), as torch's `interpolate` does
    (align_corners=False, centres of pixels on the grid, no antialiasing): pytorch-fid.
    """
    image = image.astype(jnp.float32)
    centre = jnp.arange(SIDE) + 0.5
    y, x = (jnp.maximum(0.0, centre * (side / SIDE) - 0.5) for side in image.shape[1:3])
    return 2.0 * (bilinear(image, y, x) / 255.0) - 1.0


# ---------------------------------------------------------------- the table


@static
class Conv:
    """A convolution without bias, BatchNorm and ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def average_pool(h: Array) -> Array:
    """Means of 3×3 windows, over those of their pixels that lie in the image."""
    return nn.avg_pool(h, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(h: Array) -> Array:
    """Maxima of 3×3 windows; keeps the shape."""
    return nn.max_pool(h, (3, 3), padding="SAME")


def halving_pool(h: Array) -> Array:
    """Maxima of 3×3 windows in steps of two, none across the border."""
    return nn.max_pool(h, (3, 3), strides=(2, 2))


def halving(features: int) -> Conv:
    """A 3×3 convolution in steps of two, without padding."""
    return Conv(features, (3, 3), 2, "VALID")


# A pool or Conv, or a fork of Convs that read the same input.
Step = Callable[[Array], Array] | Conv | tuple[Conv, ...]
Branches = tuple[tuple[str, tuple[Step, ...]], ...]


def block_a(pooled: int) -> Branches:
    """Szegedy et al. 2016, figure 5: a 5×5 beside two 3×3 that factorise one."""
    return (
        ("branch1x1", (Conv(64),)),
        ("branch5x5", (Conv(48), Conv(64, (5, 5)))),
        ("branch3x3dbl", (Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3)))),
        ("branch_pool", (average_pool, Conv(pooled))),
    )


def block_c(width: int) -> Branches:
    """Figure 6: 7×7 convolutions factorised into rows and columns."""
    row, column = Conv(width, (1, 7)), Conv(width, (7, 1))
    out = Conv(192, (1, 7))
    return (
        ("branch1x1", (Conv(192),)),
        ("branch7x7", (Conv(width), row, Conv(192, (7, 1)))),
        ("branch7x7dbl", (Conv(width), column, row, column, out)),
        ("branch_pool", (average_pool, Conv(192))),
    )


def block_e(pool: Step) -> Branches:
    """Figure 7: forks of a row and a column, for a wide code on the coarsest grid."""
    fork = Conv(384, (1, 3)), Conv(384, (3, 1))
    return (
        ("branch1x1", (Conv(320),)),
        ("branch3x3", (Conv(384), fork)),
        ("branch3x3dbl", (Conv(448), Conv(384, (3, 3)), fork)),
        ("branch_pool", (pool, Conv(192))),
    )


BLOCK_B: Branches = (
    ("branch3x3", (halving(384),)),
    ("branch3x3dbl", (Conv(64), Conv(96, (3, 3)), halving(96))),
    ("branch_pool", (halving_pool,)),
)
BLOCK_D: Branches = (
    ("branch3x3", (Conv(192), halving(320))),
    ("branch7x7x3", (Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), halving(192))),
    ("branch_pool", (halving_pool,)),
)

# Name -> a Conv, a pool, or a block's branches, in order.
NETWORK = (
    ("Conv2d_1a_3x3", halving(32)),
    ("Conv2d_2a_3x3", Conv(32, (3, 3), padding="VALID")),
    ("Conv2d_2b_3x3", Conv(64, (3, 3))),
    ("maxpool1", halving_pool),
    ("Conv2d_3b_1x1", Conv(80)),
    ("Conv2d_4a_3x3", Conv(192, (3, 3), padding="VALID")),
    ("maxpool2", halving_pool),
    ("Mixed_5b", block_a(32)),
    ("Mixed_5c", block_a(64)),
    ("Mixed_5d", block_a(64)),
    ("Mixed_6a", BLOCK_B),
    ("Mixed_6b", block_c(128)),
    ("Mixed_6c", block_c(160)),
    ("Mixed_6d", block_c(160)),
    ("Mixed_6e", block_c(192)),
    ("Mixed_7a", BLOCK_D),
    ("Mixed_7b", block_e(average_pool)),
    ("Mixed_7c", block_e(max_pool)),
)

# ---------------------------------------------------------------- the network


class ConvNormReLU(nn.Module):
    """h [B, H, W, C] -> [B, H', W', features], normalised by running averages."""

    spec: Conv

    @nn.compact
    def __call__(self, h: Array) -> Array:
        h = nn.Conv(
            self.spec.features,
            self.spec.kernel,
            self.spec.stride,
            self.spec.padding,
            use_bias=False,
            precision=EXACT,
            name="conv",
        )(h)
        return nn.relu(
            nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(h)
        )


class Mixed(nn.Module):
    """h [B, H, W, C] -> the outputs of all branches, concatenated.

    The convolutions of `branch` are branch_1, branch_2, ..., those of a fork
    branch_2a, branch_2b; the only one of a branch has the branch's own name.
    """

    branches: Branches

    @nn.compact
    def __call__(self, h: Array) -> Array:
        return jnp.concatenate([self.branch(h, *b) for b in self.branches], axis=-1)

    def branch(self, h: Array, name: str, steps: tuple[Step, ...]) -> Array:
        alone = sum(not callable(step) for step in steps) == 1
        for i, step in enumerate(steps, 1):
            here = name if alone else f"{name}_{i}"
            if callable(step):
                h = step(h)
            elif isinstance(step, Conv):
                h = ConvNormReLU(step, name=here)(h)
            else:
                tines = [
                    ConvNormReLU(spec, name=here + letter)(h)
                    for spec, letter in zip(step, "ab", strict=True)
                ]
                h = jnp.concatenate(tines, axis=-1)
        return h


class Activations(NamedTuple):
    """`pool` [B, 2048], the features of FID, and `logits` [B, 1008], both float32.

    The Inception score of the original graph left the bias out: its logits are
    `pool @ params["fc"]["kernel"]`.
    """

    pool: Array
    logits: Array


class InceptionV3(nn.Module):
    """Image [B, H, W, C] in [0, 255], uint8 or float, C 1 (grey) or 3 -> Activations.

    `preprocess` brings any size to [B, 299, 299, C] in about [-1, 1]: `tensorflow_1`,
    the original convention, or `pytorch`. Raises BadInput on another C. Collections:
    params, batch_stats (never updated). Szegedy et al. 2016, arXiv:1512.00567.
    """

    preprocess: Callable[[Array], Array] = tensorflow_1

    @nn.compact
    def __call__(self, image: Array) -> Activations:
        chex.assert_rank(image, 4)
        if image.shape[-1] not in (1, 3):
            raise BadInput(
                f"InceptionV3 reads images of 1 or 3 channels, not {image.shape[-1]}: "
                "convert them to grey or RGB"
            )
        h = self.preprocess(image)
        h = jnp.broadcast_to(h, (*h.shape[:3], 3))
        for name, what in NETWORK:
            if callable(what):
                h = what(h)
            elif isinstance(what, Conv):
                h = ConvNormReLU(what, name=name)(h)
            else:
                h = Mixed(what, name=name)(h)
        pool = jnp.mean(h, axis=(1, 2))  # [B, 2048]
        return Activations(pool, nn.Dense(CLASSES, precision=EXACT, name="fc")(pool))


# ---------------------------------------------------------------- weights

# (collection, leaf) of linen -> last word in the state dict.
_WORD = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
# Rank of a linen array -> its axes in torch's: OIHW -> HWIO, [out, in] -> [in, out].
_AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def from_torch(tensors: Mapping[str, Array]) -> Tree:
    """Variables of `InceptionV3` from the state dict of the FID weights.

    `num_batches_tracked` and `AuxLogits.*` are left aside. Raises BadInput on the
    first tensor that is missing, has another shape or is unknown.
    """
    remedy = "use the FID weights, pt_inception-2015-12-05-6726825d.pth"
    net, black = InceptionV3(), jnp.zeros((1, SIDE, SIDE, 3))
    used = set()

    def convert(path, leaf):
        collection, *modules, last = (entry.key for entry in path)
        name = ".".join((*modules, _WORD[collection, last]))
        used.add(name)
        axes = _AXES[leaf.ndim]
        shape = tuple(leaf.shape[axes.index(i)] for i in range(leaf.ndim))
        if name not in tensors:
            raise BadInput(f"the weights of Inception-v3 lack {name}: {remedy}")
        if tensors[name].shape != shape:
            raise BadInput(
                f"{name} has the shape {tensors[name].shape} where the Inception-v3 of "
                f"FID has {shape}: {remedy}"
            )
        return jnp.asarray(tensors[name].transpose(axes), leaf.dtype)

    expected = jax.eval_shape(net.init, jax.random.key(0), black)
    variables = jax.tree_util.tree_map_with_path(convert, expected)
    for name in tensors:
        aside = name.endswith(".num_batches_tracked") or name.startswith("AuxLogits.")
        if name not in used and not aside:
            raise BadInput(f"{name} has no place in the Inception-v3 of FID: {remedy}")
    return variables
