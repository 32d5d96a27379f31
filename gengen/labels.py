"""Class labels at the border of a sampler."""

import jax
import jax.numpy as jnp
import numpy as np

from gengen.scan import fold_in, randint
from gengen.types import Array, BadInput


def sample_labels(
    keys: Array, label: Array | int | None, num_classes: int
) -> Array | None:
    """int32 [B] in 0 … num_classes-1 for keys [B]; None for an unconditional model.

    label: one number for all, one an example, or None: drawn uniformly, each from its
    own key, so that samples come from the mixture over classes. Raises BadInput for a
    label of an unconditional model, another number of labels than of samples and,
    where its value is known, a label out of range.
    """
    if num_classes == 0:
        if label is not None:
            raise BadInput(
                f"label={label}: the model is unconditional; leave the label out, or "
                "train one on a labelled data set"
            )
        return None
    if label is None:
        return randint(fold_in(keys, 0x1ABE1), num_classes)
    if not isinstance(label, jax.core.Tracer):
        values = np.asarray(label)
        if not np.issubdtype(values.dtype, np.integer):
            raise BadInput(f"label={label}: labels are integers")
        bad = values[(values < 0) | (values >= num_classes)]
        if bad.size:
            raise BadInput(
                f"label={bad.flat[0]} is out of range: "
                f"the model's classes are 0 to {num_classes - 1}"
            )
    label = jnp.asarray(label, jnp.int32)
    if label.shape not in ((), keys.shape):
        raise BadInput(
            f"{label.size} labels for {len(keys)} samples: give one, or one a sample"
        )
    return jnp.broadcast_to(label, keys.shape)
