"""What models with a p(x|z) share: its data, the kind of its bound, what is shown."""

import jax.numpy as jnp

from gengen.errors import BadInput
from gengen.spaces import Images
from gengen.types import Array


class Observing:
    """A model with `space`, `observation` and `importance_samples`."""

    density = "bound"

    @property
    def likelihood_kind(self) -> str:
        """What `log_likelihood` is: "ELBO" or "IWAE-K", "dequantised-" if it is."""
        k = self.importance_samples
        bound = "ELBO" if k == 1 else f"IWAE-{k}"
        dequantises = self.observation.continuous and self.space.size is not None
        return f"dequantised-{bound}" if dequantises else bound

    def check_importance_samples(self) -> None:
        """BadInput for a bound of no draw."""
        if self.importance_samples < 1:
            raise BadInput(
                f"importance_samples={self.importance_samples}: a bound takes at least "
                "1 draw"
            )

    def observed_data(self, batch, key) -> Array:
        """What p(x|z) is of: the batch's own data, or of a density x [B, *shape]."""
        data = self.space.data(batch)
        return self.space.dequantize(key, data) if self.observation.continuous else data

    @property
    def observed_volume(self) -> float:
        """What makes a density of x one of the data: nats per example."""
        return self.space.log_volume if self.observation.continuous else 0.0

    def shown(self, x: Array) -> Array:
        """A density of images knows no black and white, where images end."""
        if self.observation.continuous and isinstance(self.space, Images):
            return jnp.clip(x, -1.0, 1.0)
        return x

    def as_shown(self, data: Array) -> Array:
        """x of what the observation draws: levels, or x of a density."""
        if self.observation.continuous:
            return self.shown(data)
        return self.space.to_model(data)
