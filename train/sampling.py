"""Samples of any model, in batches of one compiled program."""

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gengen.types import BadInput


def class_labels(model, num: int, label: int | None = None) -> np.ndarray | None:
    """int32 [num]: `label` for all, or the classes in turn; None if unconditional."""
    classes = getattr(model, "num_classes", 0)
    if label is None:
        return np.arange(num, dtype=np.int32) % classes if classes else None
    if not classes:
        raise BadInput(
            f"--label {label}: this model is unconditional; leave the option out, or "
            "train a model on a labelled data set"
        )
    if not 0 <= label < classes:
        raise BadInput(
            f"--label {label} is out of range: the classes are 0 to {classes - 1}"
        )
    return np.full(num, label, np.int32)


def check_options(model, options: dict) -> None:
    """BadInput for an option that this model's sampler does not have."""
    known = inspect.signature(model.sample).parameters
    for name, value in options.items():
        if name not in known:
            option = name.replace("_", "-")
            raise BadInput(
                f"--{option} {value}: a {type(model).__name__}'s sampler has no such "
                "option; leave it out"
            )


def make_sampler(model, num: int, **options) -> Callable:
    """Compiled `sampler(params, state, key, first, label) -> [num, ...]` samples.

    Sample i of a call is number first + i of the key, so batches join seamlessly.
    """
    check_options(model, options)

    def sampler(params, state, key, first, label):
        condition = {} if label is None else {"label": label}
        return model.sample(
            params, state, key, num, first=first, **condition, **options
        )

    return jax.jit(sampler)


def samples(
    model, params, state, key, num: int, labels=None, batch_size: int = 256, **options
) -> np.ndarray:
    """float32 [num, ...] in data space, drawn `batch_size` at a time.

    labels: int32 [num] or None. The last batch is padded, so one program serves all.
    """
    size = min(num, batch_size)
    sampler = make_sampler(model, size, **options)
    batches = []
    for first in range(0, num, size):
        label = None
        if labels is not None:
            here = labels[first : first + size]
            label = jnp.asarray(np.pad(here, (0, size - len(here)), mode="edge"))
        batches.append(np.asarray(sampler(params, state, key, first, label)))
    return np.concatenate(batches)[:num]
