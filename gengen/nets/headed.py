"""A classifier out of any encoder: its code, and one linear layer."""

import flax.linen as nn

from gengen.types import Array


class HeadedEncoder(nn.Module):
    """x -> (logits [B, classes], features [B, F]): the code, flat, or its mean.

    >>> import jax, jax.numpy as jnp
    >>> from gengen.nets.mlp import MLPEncoder
    >>> net = HeadedEncoder(MLPEncoder(4, (8,)), classes=3)
    >>> (logits, code), _ = net.init_with_output(jax.random.key(0), jnp.ones((2, 5)))
    >>> logits.shape, code.shape
    ((2, 3), (2, 4))
    """

    encoder: nn.Module
    """x and c -> z [B, ...], or (mean, logvar) of it; without a condition."""
    classes: int
    """The number of logits."""
    dropout: float = 0.0
    """Dropout of the code, in training."""

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array]:
        code = self.encoder(x, None, train=train)
        code = code[0] if isinstance(code, tuple) else code
        code = code.reshape(len(code), -1)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(code)
        return nn.Dense(self.classes)(dropped), code
