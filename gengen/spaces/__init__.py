"""What is generated: how a batch holds it, and what a model computes with.

Every space has two representations, and both maps between them:

    data   as the batch holds it: uint8 levels, int32 symbols, raw latents
    x      what networks see and samplers return: [-1, 1], symbols, unit-scale reals

    x = space.to_model(data),   data = space.to_data(x),   space.read(batch) = x

`size` is the number of symbols that a dimension can hold, 0 … size - 1, and None for
real numbers. Images have ordered symbols, so a model may compute with x or with the
symbols; symbols without order are their own x. A density of x becomes one of the data
by `log_volume`: log p(data) = log p(x) + log_volume.

    space      data            x                    log_volume
    Images     levels k        2 k/(L - 1) - 1      D log(2/(L - 1))
    Symbols    symbols         the symbols          0
    Reals      real numbers    (data - mean)/std    -Σ log std
"""

from gengen.spaces.kinds import Images, Reals, Symbols, standardised, tokens
from gengen.spaces.space import Space

__all__ = ["Images", "Reals", "Space", "Symbols", "standardised", "tokens"]
