"""The options of networks, and the networks they make."""

from typing import Annotated, Literal

import numpy as np

from ..cli.bounds import Above, AtLeast, AtMost, Depth, Index, NonEmpty, Share, Width
from ..cli.groups import group

Multipliers = Annotated[tuple[Annotated[int, AtLeast(1), AtMost(64)], ...], NonEmpty()]


@group()
class PrecisionOptions:
    """The arithmetic of the networks' layers."""

    precision: Literal["float32", "bf16"] = "float32"
    """Precision of the layers; parameters, losses and the statistics of norms are
    float32 all the same."""

    @property
    def dtype(self):
        """The `dtype` of a network: None computes in float32."""
        import jax.numpy as jnp

        return jnp.bfloat16 if self.precision == "bf16" else None


@group()
class LayerOptions(PrecisionOptions):
    """What training a network's layers costs."""

    remat: bool = False
    """Recompute each block in the backward pass: less memory, more time."""


@group()
class UNetOptions(LayerOptions):
    """The network: a U-Net."""

    channels: Width = 32
    """Channels of the first level, a multiple of 8."""
    multipliers: Multipliers = (1, 2)
    """Channels of each level over the first's; each level after the first halves the
    image."""
    blocks: Depth = 1
    """Residual blocks per level."""
    attention: tuple[Width, ...] = ()
    """Heights of images at which the U-Net attends to itself, such as 7."""
    heads: Width = 1
    """Attention heads."""
    dropout: Share = 0.0
    """Dropout in the residual blocks."""

    def network(self, condition, **more):
        """The U-Net."""
        from gengen.nets.unet import UNet

        names = ("channels", "multipliers", "blocks", "attention", "heads", "dropout")
        own = {name: getattr(self, name) for name in (*names, "dtype", "remat")}
        return UNet(condition=condition, **own, **more)


@group()
class DiTOptions(LayerOptions):
    """The network: a diffusion transformer."""

    patch: Width = 2
    """Side of a token's patch."""
    width: Width = 96
    """Features of a token, a multiple of 4 and of `heads`."""
    blocks: Depth = 4
    """Layers of attention and MLP."""
    heads: Width = 4
    """Attention heads."""
    dropout: Share = 0.0
    """Dropout on what each layer adds."""

    def network(self, condition):
        """The transformer."""
        from gengen.nets.dit import DiT

        names = ("patch", "width", "blocks", "heads", "dropout", "dtype", "remat")
        # XLA would undo the recomputation between blocks of one turn.
        unroll = 1 if self.remat else min(self.blocks, 4)
        own = {name: getattr(self, name) for name in names}
        return DiT(condition=condition, **own, unroll=unroll)


@group()
class SymbolOptions:
    """How a transformer reads its symbols."""

    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    """What says where a symbol stands; learned, tied and with a start symbol, the
    transformer is GPT-2's, and its weights can be exported."""
    tied: bool = False
    """The output's matrix is that of the symbols' embeddings."""
    start_symbol: Index | None = None
    """The symbol that stands before the first one, of those of the data; by default one
    of its own."""
    norm_epsilon: Annotated[float, Above(0), AtMost(1)] = 1e-6
    """What the norms add to a variance."""

    def of_symbols(self) -> dict:
        """These options as fields of a `Transformer`."""
        return {
            "learned_positions": self.positions == "learned",
            "tied": self.tied,
            "start_symbol": self.start_symbol,
            "epsilon": self.norm_epsilon,
        }


@group()
class CoderOptions(PrecisionOptions):
    """The sizes of an encoder and its decoder."""

    hidden: Annotated[tuple[Width, ...], NonEmpty()] = (128,)
    """Widths of the encoder's layers, reversed in the decoder (mlp)."""
    channels: Width = 32
    """Channels at full resolution, doubled at each level (conv); a multiple of 8."""
    conv_levels: Depth = 2
    """Halvings of the image (conv)."""


@group()
class OrderOptions:
    """The order in which an autoregressive model sees an image."""

    order: Literal["raster", "columns", "random"] = "raster"
    """raster (row, column, channel), columns (column, row, channel), or a random
    order, the same for all images, in which convolutions mean little."""

    def permutation(
        self, shape: tuple[int, ...], whole_pixels: bool = False
    ) -> tuple[int, ...] | None:
        """The order of subpixels of images [H, W, C], or of pixels; None for raster."""
        if self.order == "raster":
            return None
        places = np.arange(np.prod(shape[:2] if whole_pixels else shape))
        if self.order == "columns":
            columns = places.reshape(*shape[:2], -1).swapaxes(0, 1)
            return tuple(columns.ravel().tolist())
        # Philox' raw stream is the same in every version of NumPy.
        bits = np.random.Philox(0).random_raw(len(places))
        return tuple(np.argsort(bits, kind="stable").tolist())
