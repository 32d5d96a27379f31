"""Language models: the next byte, given those before it."""

from typing import Literal

from gengen.errors import BadInput

from ..data.dataset import Spec
from .experiment import Experiment
from .shared import Precision

# Architecture -> (width, layers) of about 860,000 parameters each.
SIZES = {"lstm": (216, 2), "wavenet": (128, 8), "transformer": (128, 4)}


def text(
    data: Spec,
    *,
    architecture: Literal["lstm", "wavenet", "transformer"] = "lstm",
    width: int | None = None,
    layers: int | None = None,
    heads: int = 4,
    dropout: float = 0.1,
    remat: bool = False,
    precision: Precision = "float32",
    learning_rate: float = 2e-3,
    batch_size: int = 16,
    steps: int = 2_000,
    ema_decay: float = 0.995,
) -> Experiment:
    """Autoregressive model of text, byte by byte: an exact density.

    --dataset text (Python's language reference) or text:PATH. An LSTM (Hochreiter and
    Schmidhuber 1997), a WaveNet (van den Oord et al. 2016, arXiv:1609.03499) or a
    transformer decoder (Vaswani et al. 2017, arXiv:1706.03762): by default of equal
    size, 0.85 to 0.87 million parameters.

    Args:
        architecture: A recurrent state, dilated convolutions, or attention.
        width: Activations a layer; by default 216 for the LSTM, else 128.
        layers: By default 2 for the LSTM, 4 for the transformer, 8 for the WaveNet,
            whose layers see 1, 2, 4, … symbols back, those after the eighth again.
        heads: Of the transformer's attention.
        dropout: Dropout in training.
        remat: Recompute each layer in the backward pass: less memory, more time.
        precision: Of the networks' layers; parameters, losses and the statistics of
            norms are float32 all the same.
        learning_rate: Of Adam, after 100 steps of warm-up.
        batch_size: Windows a step.
        steps: Training steps in all.
        ema_decay: Decay of the averaged parameters, from which samples are drawn.
    """
    from gengen.models.autoregressive import Autoregressive
    from gengen.nets.lstm import LSTM
    from gengen.nets.transformer import Transformer
    from gengen.nets.wavenet import WaveNet
    from gengen.observations.categorical import Categorical
    from gengen.spaces import tokens

    from .shared import adam, dtype

    if data.kind != "text":
        raise BadInput(
            f"the experiment text works on text, and {data.name} is images: take "
            "--dataset text, or text:PATH"
        )
    usual = SIZES[architecture]
    size = {
        "vocabulary": data.levels,
        "width": usual[0] if width is None else width,
        "dropout": dropout,
        "dtype": dtype(precision),
        "remat": remat,
    }
    layers = usual[1] if layers is None else layers
    head = Categorical(data.levels)
    if architecture == "lstm":
        net = LSTM(head.features, layers=layers, **size)
    elif architecture == "wavenet":
        net = WaveNet(head.features, layers=layers, **size)
    else:
        length = data.shape[0]
        net = Transformer(head.features, length, blocks=layers, heads=heads, **size)
    model = Autoregressive(net, head, tokens(data.shape[0], data.levels))
    optimizers = {"autoregressive": adam(learning_rate)}
    return Experiment(model, optimizers, batch_size, steps, ema_decay)
