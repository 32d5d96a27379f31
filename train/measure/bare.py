"""What a bare program is: the reference of speed of one family."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Reference:
    """A family's bare program: how it would be written without the library.

    call: one network evaluation (params, state) -> array; bare: (params, state, key)
    -> samples [num, ...], or None with a reason where nobody has written one.
    """

    call: Callable
    bare: Callable | None
    reason: str = ""


def uniform_labels(model, key, num: int) -> dict:
    """Labels int32 [num] of the model's condition, drawn at once; {} without any."""
    import jax

    from gengen.conditions import labels_of

    labels = labels_of(model.condition)
    return (
        {labels.key: jax.random.randint(key, (num,), 0, labels.num)} if labels else {}
    )
