"""Arrays in memory as a data set.

    load_split = from_arrays({"image": images, "label": labels})
    dataset = load_split("train")

What the examples are is said by the array's name, as it is in a batch:

    image   uint8 [N, H, W, C] or [N, H, W], levels 0 to 255     → `Images`
    tokens  integers [N, L], bytes by default                    → `Symbols`
    codes   integers [N, …], such as indices of a codebook       → `Symbols`
    latent  real numbers [N, …], standardised by a model         → `Reals`

Beside it there may be `label`, [N] or [N, 1]: integers or strings, whose sorted values
are the classes. A held-out label of -1, which no training example has, is unknown.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gengen.errors import BadInput

from .dataset import KEYS, Dataset, Spec, check_split, take
from .split import PARTS, parts_of

Arrays = Mapping[str, Any]
"""{"image": [N, …], "label": [N]}: NumPy's, JAX's, or whatever NumPy converts."""
LoadSplit = Callable[[str], Dataset]

_RANKS = {"images": (4,), "text": (2,), "symbols": range(2, 9), "reals": range(2, 9)}
_SHAPES = {
    "images": "[N, height, width, channels] or [N, height, width]",
    "text": "[N, length]",
    "symbols": "[N, …]",
    "reals": "[N, …]",
}


class _Part(NamedTuple):
    """The arrays of one split, checked; labels are still the user's values."""

    kind: str
    data: np.ndarray
    label: np.ndarray | None


def from_arrays(
    arrays: Arrays,
    *,
    name: str = "arrays",
    held_out: Arrays | Mapping[str, Arrays] | None = None,
    levels: int | None = None,
) -> LoadSplit:
    """`load_split(split) -> Dataset` of arrays, as of every other source of data.

    The arrays are not copied, so they must not be changed while a run reads them.

    Args:
        arrays: what is trained on, such as {"image": uint8 [N, H, W, C], "label": [N]}.
        name: what notes and errors call the set.
        held_out: the same of the split "validation", or {split: arrays} of several,
            such as {"validation": …, "test": …}; None for no other split.
        levels: of images the number of levels (256 by default), of tokens and codes
            the number of symbols (by default 256 of tokens, and of both at least one
            more than the largest that is there).

    Raises:
        BadInput: for what cannot be trained on, and, by the answer, for a split that
            there is none of (its `no_such_split` is True).

    >>> digits = np.zeros((9, 8, 8), np.uint8)
    >>> load_split = from_arrays({"image": digits, "label": list("abcabcabc")})
    >>> load_split("train").spec.shape, load_split("train").spec.class_names
    ((8, 8, 1), ('a', 'b', 'c'))
    """
    if held_out is None:
        others = {}
    elif all(isinstance(value, Mapping) for value in held_out.values()):
        others = dict(held_out)
    else:
        others = {"validation": held_out}
    return from_splits({"train": arrays, **others}, name, levels)


def parted(arrays: Arrays) -> tuple[Arrays, dict[str, Arrays]]:
    """(arrays to train on, {split: arrays} held out), 80/10/10, by index alone."""
    num = len(next(iter(arrays.values())))
    parts = parts_of([str(i) for i in range(num)])
    splits = {
        split: {key: np.asarray(array)[parts == split] for key, array in arrays.items()}
        for split in PARTS
        if split == "train" or (parts == split).any()
    }
    return splits.pop("train"), splits


def from_splits(
    splits: Mapping[str, Arrays],
    name: str,
    levels: int | None = None,
    note: str = "; split {}",
) -> LoadSplit:
    """`from_arrays` of {split: arrays}, "train" among them; {} of `note` is a split."""
    parts = {}
    for split, arrays in splits.items():
        parts[split] = _checked(f"{name}, split {split}", arrays)
    first = parts["train"]
    for split, part in parts.items():
        _check_alike(name, split, part, first)
    classes, labels = _classes(name, parts)
    spec = _spec(name, parts, levels, classes)
    datasets = {}
    for split, part in parts.items():
        data = part.data.astype(spec.dtype, copy=False)
        held = {KEYS[spec.kind]: data} | labels[split]
        size = "x".join(map(str, spec.shape))
        told = f"{name}: {len(data):,} {spec.examples}, {size}{note.format(split)}"
        fetch = functools.partial(take, held)
        datasets[split] = Dataset(spec, len(data), fetch, told)
    return functools.partial(_one_of, name, datasets)


def _one_of(name: str, datasets: dict[str, Dataset], split: str) -> Dataset:
    check_split(name, split, datasets)
    return datasets[split]


def _checked(who: str, arrays: Arrays) -> _Part:
    """The arrays of one split, or BadInput."""
    keys = [key for key in KEYS.values() if key in arrays]
    others = sorted(arrays.keys() - {*KEYS.values(), "label"})
    if len(keys) != 1 or others:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise BadInput(
            f"{who} has the arrays {found}: give one of {', '.join(KEYS.values())}, "
            "and label if there are classes"
        )
    kind = next(kind for kind, key in KEYS.items() if key == keys[0])
    data = _data(f"{who}: {keys[0]}", kind, np.asarray(arrays[keys[0]]))
    label = arrays.get("label")
    if label is not None:
        label = _label(f"{who}: label", np.asarray(label), len(data))
    return _Part(kind, data, label)


def _data(who: str, kind: str, data: np.ndarray) -> np.ndarray:
    """The examples in the type and rank of their kind, or BadInput."""
    is_real, is_integer = data.dtype.kind == "f", data.dtype.kind in "iu"
    if kind == "images" and is_real:
        raise BadInput(
            f"{who} is {data.dtype} where levels 0 to 255 are needed: give uint8, of "
            "numbers in [0, 1] np.round(255 * image).astype(np.uint8)"
        )
    if not (is_real if kind == "reals" else is_integer):
        needed = "real numbers" if kind == "reals" else "integers"
        raise BadInput(f"{who} is {data.dtype} where {needed} are needed: convert it")
    if kind == "images" and data.ndim == 3:
        data = data[..., None]
    if data.ndim not in _RANKS[kind]:
        raise BadInput(
            f"{who} has the shape {list(data.shape)} where {_SHAPES[kind]} is needed: "
            "reshape it"
        )
    if not data.size:
        raise BadInput(f"{who} has the shape {list(data.shape)}: give examples")
    if kind == "reals":
        if not np.isfinite(data).all():
            raise BadInput(f"{who} holds numbers that are not finite: remove them")
        return data
    least, most = int(data.min()), int(data.max())
    if least < 0 or most > (255 if kind == "images" else 2**31 - 2):
        raise BadInput(
            f"{who} holds {least} to {most} where "
            f"{'levels 0 to 255' if kind == 'images' else 'symbols from 0 on'} "
            "are needed: shift or requantise them"
        )
    if kind == "images" and data.shape[-1] not in (1, 3):
        first = data.shape[1] in (1, 3)
        remedy = "np.moveaxis(image, 1, -1)" if first else "give 1 or 3 channels"
        raise BadInput(
            f"{who} has the shape {list(data.shape)} and so {data.shape[-1]} channels, "
            f"for they come last: {remedy}"
        )
    return data


def _label(who: str, label: np.ndarray, num: int) -> np.ndarray:
    """One integer or string per example, or BadInput."""
    if label.dtype == object and all(isinstance(x, str) for x in label.ravel()):
        label = label.astype(str)
    if label.dtype.kind not in "iubUS":
        raise BadInput(
            f"{who} is {label.dtype} where integers or strings are needed: convert it"
        )
    if label.ndim == 2 and label.shape[1] == 1:
        label = label[:, 0]
    if label.ndim != 1:
        raise BadInput(
            f"{who} has the shape {list(label.shape)} where [N] is needed: "
            "give label.argmax(-1) of one-hot rows"
        )
    if len(label) != num:
        raise BadInput(
            f"{who} has {len(label):,} entries for {num:,} examples: give one for each"
        )
    return np.char.decode(label) if label.dtype.kind == "S" else label


def _check_alike(name: str, split: str, part: _Part, first: _Part) -> None:
    """BadInput for a split whose examples are not of the training split's type."""
    for what, here, there in (
        ("of kind", part.kind, first.kind),
        ("of shape", list(part.data.shape[1:]), list(first.data.shape[1:])),
        ("labelled:", part.label is not None, first.label is not None),
    ):
        if here != there:
            raise BadInput(
                f"{name}: examples of the split {split} are {what} {here}, those of "
                f"train {there}: give both alike"
            )


def _classes(name: str, parts: dict[str, _Part]) -> tuple[tuple[str, ...], dict]:
    """(names of the classes, {split: {"label": int32 [N]} or {}})."""
    if parts["train"].label is None:
        return (), {split: {} for split in parts}
    values = np.unique(parts["train"].label)
    if len(values) < 2:
        raise BadInput(
            f"{name}: all training labels are {values[0]}: leave the labels out, or "
            "give examples of other classes"
        )
    labels = {}
    for split, part in parts.items():
        known = ~(part.label == -1) | (split == "train")
        if len(strange := np.setdiff1d(part.label[known], values)):
            raise BadInput(
                f"{name}: the label {strange[0]} of the split {split} is that of no "
                "training example: leave these examples out"
            )
        places = np.searchsorted(values, part.label)
        labels[split] = {"label": np.where(known, places, -1).astype(np.int32)}
    return tuple(str(value) for value in values), labels


def _spec(name: str, parts: dict, levels: int | None, classes: tuple) -> Spec:
    first = parts["train"]
    shape = first.data.shape[1:]
    if first.kind == "reals":
        if levels is not None:
            raise BadInput(
                f"{name}: real numbers have no levels={levels}: leave it out"
            )
        rows = first.data.reshape(-1, shape[-1])
        mean, std = rows.mean(0, np.float64), rows.std(0, np.float64)
        if not std.all():
            raise BadInput(
                f"{name}: channel {int(np.argmin(std))} of latent is constant, so "
                "there is nothing to be learned: leave it out"
            )
        known = {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
        return Spec(name, shape, 0, len(classes), classes, "reals", **known)
    most = max(int(part.data.max()) for part in parts.values())
    usual = {"images": 256, "text": max(256, most + 1), "symbols": max(2, most + 1)}
    levels = usual[first.kind] if levels is None else levels
    if not most < levels or (first.kind == "images" and levels > 256) or levels < 2:
        raise BadInput(
            f"{name}: levels={levels} do not fit values up to {most}: give at least "
            f"{max(2, most + 1)}{' and at most 256' * (first.kind == 'images')}"
        )
    return Spec(name, shape, levels, len(classes), classes, first.kind)
