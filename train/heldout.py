"""Bits per dimension of data the run does not train on, while it trains."""

import jax
import numpy as np

from gengen.images import bits_per_dim
from gengen.types import BadInput
from train import data as datasets
from train.options import Run

EXAMPLES = 512


class HeldOut:
    """{"validation/bits_per_dim_ELBO": …} of a train state, or {} without a density.

    The first 512 examples of the validation split (test, where there is none), a
    batch at a time; always the same noise, so that the curve shows the model and not
    the draw.
    """

    def __init__(self, run: Run, model, batch_size: int):
        self.model, self.batches = model, []
        if model.density == "none":
            return
        for split in ("validation", "test"):
            try:
                dataset = datasets.load(
                    run.dataset,
                    split=split,
                    data_dir=run.data_dir,
                    image_size=run.image_size,
                    levels=run.levels,
                )
            except BadInput:
                continue  # this data set has no such split
            self.name = f"{split}/bits_per_dim_{model.likelihood_kind}"
            self.num, self.shape = min(dataset.size, EXAMPLES), dataset.spec.shape
            size = min(self.num, batch_size)
            for first in range(0, self.num, size):
                # The last batch is filled up with examples that do not count.
                indices = np.arange(first, first + size) % self.num
                self.batches.append(dataset.fetch(indices))
            self._log_likelihood = jax.jit(model.log_likelihood)
            self.key = jax.random.key(run.seed)
            return

    def __call__(self, ts) -> dict[str, float]:
        if not self.batches:
            return {}
        params = ts.params if ts.ema is None else ts.ema
        nats = [
            self._log_likelihood(
                params, ts.state, batch, jax.random.fold_in(self.key, i)
            )
            for i, batch in enumerate(self.batches)
        ]
        nats = np.concatenate([np.asarray(x, np.float64) for x in nats])[: self.num]
        return {self.name: float(np.mean(bits_per_dim(nats, self.shape)))}
