"""What x is conditioned on: a condition c is a mapping by the batch's own names.

    c = condition.read(batch)                     {"label": [B]}, {"text": [B, L]}, {}
    c = drop(condition, key, rate, c)             in training: null in a share of rows
    c = condition.given({"label": 3}, num, keys)  from a caller; the rest is drawn
    predict(z, t, c)                              a network reads the names it knows
    predict(z, t, condition.null(c))              ∅ of classifier-free guidance

A condition is a tree of arrays [B, ...]: its rows can be cut, vmapped and exported
under their names. A wrapper adds an entry of its own, such as a second time or a
guidance scale, and a network that does not know the entry does not see it.

    part        c[key]                      null              missing in sampling
    Labels      int32 [B]                   label `num`       drawn uniformly
    Sequence    float [B, S, width]         tokens of zeros   null, if it was trained
    Text        int32 [B, S <= length]      all padding       null, if it was trained
    Maps        float [B, H, W, C]          zeros             refused
    Scalar      float [B]                   none              refused

`both` makes one condition of several; parts that were dropped together are given, or
null, together. `Nothing` is the condition of an unconditional
model.
"""

from gengen.conditions.condition import TAKEN, Condition, Given, refuse_unknown
from gengen.conditions.joint import (
    Both,
    both,
    check_batch,
    drop,
    labels_of,
    only,
    parts_of,
    union,
)
from gengen.conditions.parts import Labels, Maps, Nothing, Scalar, Sequence, Text

__all__ = [
    "TAKEN",
    "Both",
    "Condition",
    "Given",
    "Labels",
    "Maps",
    "Nothing",
    "Scalar",
    "Sequence",
    "Text",
    "both",
    "check_batch",
    "drop",
    "labels_of",
    "only",
    "parts_of",
    "refuse_unknown",
    "union",
]
