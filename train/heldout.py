"""Bits per dimension of data the run does not train on, while it trains."""

import jax
import jax.numpy as jnp
import numpy as np

from gengen.images import bits_per_dim
from gengen.types import BadInput
from train import data as datasets
from train.options import Run

EXAMPLES = 512


class HeldOut:
    """{"validation/bits_per_dim_ELBO": …} of a train state, or {} without a density.

    The first 512 examples of the validation split (test, where there is none); always
    the same noise, so that the curve shows the model and not the draw.
    """

    def __init__(self, run: Run, model):
        self.model, self.batch = model, None
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
            self.batch = dataset.fetch(np.arange(min(dataset.size, EXAMPLES)))
            self.key = jax.random.key(run.seed)
            self._bits = jax.jit(self._mean_bits)
            return

    def _mean_bits(self, params, state, batch, key):
        log_likelihood = self.model.log_likelihood(params, state, batch, key)
        return jnp.mean(bits_per_dim(log_likelihood, batch["image"].shape[1:]))

    def __call__(self, ts) -> dict[str, float]:
        if self.batch is None:
            return {}
        params = ts.params if ts.ema is None else ts.ema
        return {self.name: float(self._bits(params, ts.state, self.batch, self.key))}
