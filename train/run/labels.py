"""Which class `--label` means: by its name, or by its number."""

import difflib

import numpy as np

from gengen.errors import BadInput

from .sampler import sample_classes

SHOWN = 20  # class names in a sentence, at most


def label_index(label: int | str, names: tuple[str, ...], option="--label ") -> int:
    """The index of a class that is asked for by its name or its index.

    A name wins over an index, as written over another case. BadInput, with what is
    near, for a class that there is not, and for a name of several.

    Args:
        label: the name or the index.
        names: the names of the classes, in order.
        option: what stands before the label in the sentence.

    >>> label_index("cat", ("Cat", "Dog")), label_index(1, ("Cat", "Dog"))
    (0, 1)
    >>> label_index("2", ("0", "1", "10", "11", "2"))
    4
    """
    asked = str(label)
    if asked in names:
        return names.index(asked)
    same = [i for i, name in enumerate(names) if _key(name) == _key(asked)]
    if len(same) == 1:
        return same[0]
    if same:
        which = " or ".join(f"{names[i]!r} ({i})" for i in same)
        raise BadInput(f"{option}{label} is ambiguous: say {which}")
    try:
        index = int(asked)
    except ValueError:
        index = None
    if index is not None and 0 <= index < len(names):
        return index
    what, near = "is out of range", ""
    if index is None:
        what, near = "is no class", _near(asked, names)
    raise BadInput(f"{option}{label} {what}{near}: {_known(names)}")


def asked_label(trained, label: int | str | None) -> int | None:
    """The index of `--label` in a run, and a line that says which class it is.

    Args:
        trained: the run, with its guides.
        label: the option; None, the default, has no index.
    """
    if label is None:
        return None
    num = sample_classes(trained.model)
    if not num:
        raise BadInput(
            f"--label {label}: this model is unconditional; leave the option out, or "
            "train a model on a labelled data set"
        )
    names = class_names(trained.record.data, num)
    index = label_index(label, names)
    print(f'label {index}: class "{names[index]}"')
    return index


def class_names(spec, num: int) -> tuple[str, ...]:
    """The data set's names of `num` classes; their numbers where it has no names."""
    known = spec.class_names
    return known if len(known) == num else tuple(map(str, range(num)))


def names_of(labels, spec) -> list[str]:
    """The names of many labels, as captions; [] of None and of a set without names."""
    names = spec.class_names
    if labels is None or not names:
        return []
    return [names[k] if 0 <= k < len(names) else "?" for k in np.asarray(labels)]


def _key(name: str) -> str:
    return name.strip().casefold()


def _near(asked: str, names: tuple[str, ...]) -> str:
    """ " (did you mean 'Ankle boot'?)", or nothing where nothing is near."""
    keys = {_key(name): name for name in reversed(names)}
    near = difflib.get_close_matches(_key(asked), list(keys), 3)
    near = near or [key for key in keys if _key(asked) and _key(asked) in key]
    words = " or ".join(repr(keys[key]) for key in near[:3])
    return f" (did you mean {words}?)" if words else ""


def _known(names: tuple[str, ...]) -> str:
    """ "the classes are 0 to 1: cat, dog"; numbers alone where they are the names."""
    numbers = f"the classes are 0 to {len(names) - 1}"
    if names == tuple(map(str, range(len(names)))):
        return numbers
    more = ", …" if len(names) > SHOWN else ""
    return f"{numbers} ({', '.join(names[:SHOWN])}{more})"
