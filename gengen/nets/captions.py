"""A caption as one vector: the encoder of a conditional network, and a linear map."""

from typing import Any

import flax.linen as nn

from gengen.conditions import Given, Text
from gengen.errors import BadInput
from gengen.nets.conditioning import Context, sequence_of
from gengen.types import Array


class CaptionEncoder(nn.Module):
    """c -> [B, dim]: what the token before a text holds after `Context`'s layers.

    Its parameters of the text are those of a network that attends to the text.

    >>> import jax, jax.numpy as jnp
    >>> net, c = CaptionEncoder(Text(9, 5), 3), {"text": jnp.ones((2, 5), int)}
    >>> net.init_with_output(jax.random.key(0), c, 2)[0].shape
    (2, 3)
    """

    condition: Any
    """A `Text`."""
    dim: int
    """D, the length of the vector."""

    @nn.compact
    def __call__(self, c: Given, num: int) -> Array:
        part = sequence_of(self.condition)
        if not isinstance(part, Text) or part.blocks < 1:
            raise BadInput(
                f"{self.condition} is no text that is encoded: take a Text of one block"
                " or more"
            )
        tokens, _ = Context(self.condition)(c, num)
        return nn.Dense(self.dim, use_bias=False)(nn.LayerNorm()(tokens[:, 0]))
