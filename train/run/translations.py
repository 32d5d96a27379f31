"""What a run of two domains draws of itself: images of each, there and back."""

from pathlib import Path

import jax
import numpy as np

from .pictures import save_grid, to_uint8
from .sampler import COLUMNS


class Translations:
    """The picture of maps between two domains: images of a, of b, and where they go.

    A row: an image of a, its translation and the way back; then those of one of b.
    """

    suffix = ".png"

    def __init__(self, model, load_split):
        dataset = load_split("train")
        places = np.arange(min(COLUMNS, dataset.size))
        self.batch, self.space = dataset.fetch(places), model.space
        self._translate = jax.jit(model.translate, static_argnames="to")

    def save(self, path: Path, train_state) -> Path:
        """Translate with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        weights, columns = (params, train_state.state), []
        for key, to, back in (("image", "b", "a"), ("partner", "a", "b")):
            x = self.space.to_model(self.batch[key])
            y = self._translate(*weights, x, to=to)
            columns += [x, y, self._translate(*weights, y, to=back)]
        x = np.stack([np.asarray(x) for x in columns], axis=1)
        heads = ("a", "as b", "back", "b", "as a", "back")
        flat = to_uint8(x.reshape(-1, *x.shape[2:]))
        return save_grid(path, flat, len(heads), column_names=heads)
