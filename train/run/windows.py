"""Text that is longer than the model's window: one window after the other.

Each window begins with the last half of a window of what is there, and the model
completes it; so every symbol is drawn given at least that much of what is before it.
"""

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.models.autoregressive import Autoregressive


class Sliding:
    """Goes on with texts [B, n] until they have `length` symbols.

    One compiled program, whatever the length. Text i is number i of the key.
    """

    def __init__(self, model, batch_size: int, length: int, **keywords):
        window = model.space.shape[0]
        if not isinstance(model, Autoregressive) or model.order is not None:
            raise BadInput(
                f"--length {length}: this {type(model).__name__} draws windows of "
                f"{window} symbols and cannot go on from one; take at most {window}"
            )
        self.length, self.window, self.kept = length, window, window // 2
        observed = np.arange(window) < self.kept

        def complete(params, state, key, first, tokens, given):
            batch, how = {"tokens": tokens, **given}, {"start_index": first, **keywords}
            return model.complete(params, state, key, batch, observed, **how).x

        self._complete = jax.jit(complete)

    def __call__(self, params, state, key, first: int, x: np.ndarray, given: dict):
        """x [B, n], at least half a window -> [B, length], which begins with x.

        first: the number of text 0.
        """
        number, unknown = 0, [(0, 0), (0, self.window - self.kept)]
        while x.shape[1] < self.length:
            number += 1
            here = jax.random.fold_in(key, number)
            tokens = np.pad(x[:, x.shape[1] - self.kept :], unknown)
            more = self._complete(params, state, here, first, tokens, given)
            x = np.concatenate([x, np.asarray(more)[:, self.kept :]], axis=1)
        return x[:, : self.length]
