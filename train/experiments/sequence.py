"""The networks over a sequence of symbols, which text and priors of codes share."""

import dataclasses
from typing import Literal

from gengen.errors import BadInput

from ..cli.bounds import Depth, Share, Width
from ..cli.groups import group
from .nets import LayerOptions, SymbolOptions

# Architecture -> (width, layers) of about 860,000 parameters each.
SIZES = {"lstm": (216, 2), "wavenet": (128, 8), "transformer": (128, 4)}


@group()
class SequenceOptions(LayerOptions, SymbolOptions):
    """The network over a sequence of symbols."""

    architecture: Literal[tuple(SIZES)] = "lstm"
    """A recurrent state, dilated convolutions, or attention."""
    width: Width | None = None
    """Activations per layer; by default 216 for the LSTM, else 128."""
    layers: Depth | None = None
    """Layers; by default 2 for the LSTM, 4 for the transformer, 8 for the WaveNet,
    whose layers see 1, 2, 4, … symbols back, those after the eighth again."""
    heads: Width = 4
    """Heads of the transformer's attention."""
    dropout: Share = 0.1
    """Dropout in training."""

    def autoregressive(self, space, condition):
        """The model of a space of symbols, in the order of its rows."""
        import math

        from gengen.models.autoregressive import Autoregressive
        from gengen.nets.lstm import LSTM
        from gengen.nets.transformer import Transformer
        from gengen.nets.wavenet import WaveNet
        from gengen.observations.categorical import Categorical

        head, (width, layers) = Categorical(space.size), SIZES[self.architecture]
        layers = layers if self.layers is None else self.layers
        self.refuse_symbols()
        size = {
            "vocabulary": space.size,
            "width": width if self.width is None else self.width,
            "dropout": self.dropout,
            "condition": condition,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        if self.architecture == "lstm":
            net = LSTM(head.features, layers=layers, **size)
        elif self.architecture == "wavenet":
            net = WaveNet(head.features, layers=layers, **size)
        else:
            size |= {"blocks": layers, "heads": self.heads, **self.of_symbols()}
            net = Transformer(head.features, math.prod(space.shape), **size)
        return Autoregressive(net, head, space, condition)

    def refuse_symbols(self) -> None:
        """BadInput for an option of a transformer's symbols, of another network."""
        usual = {f.name: f.default for f in dataclasses.fields(SymbolOptions)}
        given = [name for name, x in usual.items() if getattr(self, name) != x]
        if given and self.architecture != "transformer":
            raise BadInput(
                f"--{given[0].replace('_', '-')} with --architecture "
                f"{self.architecture}: it is an option of the transformer alone; leave "
                "it out"
            )
