"""Class labels at the border of a sampler."""

import jax
import jax.numpy as jnp
import numpy as np

from gengen.errors import BadInput
from gengen.scan import fold_in, randint
from gengen.types import Array


def sample_labels(
    keys: Array, label: Array | int | None, num_classes: int
) -> Array | None:
    """int32 [B] in 0 … num_classes-1 for keys [B]; None for an unconditional model.

    label as in `given_labels`, or None: drawn uniformly, each from its own key, so that
    samples come from the mixture over classes.
    """
    if label is None and num_classes:
        return randint(fold_in(keys, 0x1ABE1), num_classes)
    return given_labels(label, len(keys), num_classes)


def given_labels(label: Array | int | None, num: int, num_classes: int) -> Array | None:
    """int32 [num] from one label for all or one an example; None if unconditional.

    Raises BadInput for a label of an unconditional model, no label of a conditional
    one, another number of labels than of examples and, where its value is known, a
    label out of range.
    """
    if num_classes == 0:
        if label is not None:
            raise BadInput(
                f"label={label}: the model is unconditional; leave the label out, or "
                "train one on a labelled data set"
            )
        return None
    if label is None:
        raise BadInput(
            f"the model is conditional: give a label, 0 to {num_classes - 1}"
        )
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
    if label.shape not in ((), (num,)):
        raise BadInput(
            f"{label.size} labels for {num} examples: give one, or one an example"
        )
    return jnp.broadcast_to(label, (num,))
