"""What samples are asked to show: a class by --label, or a caption by --caption."""

from collections.abc import Callable

import numpy as np

from gengen.conditions import Nothing, Text, parts_of
from gengen.errors import BadInput

from .labels import asked_label, names_of
from .sampler import given_classes, sample_condition


def text_of(model) -> Text | None:
    """The captions that a sample of this model can be asked for, if it knows any."""
    parts = parts_of(sample_condition(model))
    return next((part for part in parts if isinstance(part, Text)), None)


def asked_caption(trained, caption: str | None, option: str = "--caption"):
    """The tokens int32 [S] of a caption, None of none; BadInput for one not known."""
    if caption is None:
        return None
    if text_of(trained.model) is None or trained.record.data.captions is None:
        raise BadInput(
            f"{option} {caption!r}: this model knows no captions; leave the option "
            "out, or train flow or dit on a data set with captions, such as scenes"
        )
    return trained.record.data.captions.encode(caption, option)


def asked(trained, num: int, label=None, caption: str | None = None) -> dict:
    """{name: one value per sample}: the class, or the caption.

    By default the classes in turn, or no caption. BadInput for a class and a caption at
    once, and for no caption where training dropped none.
    """
    if None not in (label, caption):
        raise BadInput(
            f"--label {label} with --caption {caption!r}: both say what the samples "
            "show; leave one out"
        )
    tokens = asked_caption(trained, caption)
    given = given_classes(trained.model, num, asked_label(trained, label))
    if tokens is not None:
        given[text_of(trained.model).key] = np.tile(tokens, (num, 1))
    elif text_of(trained.model) and text_of(trained.model) not in own_parts(trained):
        raise BadInput("a guide leads to a caption: give --caption, which it needs")
    elif text_of(trained.model) and not drops(trained.model):
        raise BadInput(
            "this run was trained with --label-dropout 0, so it draws nothing without "
            "a caption: give --caption"
        )
    return given


def own_parts(trained) -> tuple:
    """The parts of what a run's model itself was trained on, without its guides'."""
    return parts_of(getattr(trained.model, "condition", Nothing()))


def against(trained, caption: str | None) -> dict:
    """{"against": …} of a negative caption, a keyword of samplers; {} of none."""
    tokens = asked_caption(trained, caption, "--negative-caption")
    if tokens is None:
        return {}
    return {"against": ((text_of(trained.model).key, tuple(tokens.tolist())),)}


def drops(model) -> bool:
    """Whether a share of the captions was dropped in training."""
    inner = getattr(model, "model", model)  # of a second stage, that of the latents
    training = getattr(inner, "training", inner)
    return getattr(training, "condition_dropout", 0) > 0


def shown(given: dict, spec) -> list[str]:
    """The captions, or the names of the classes, of what was given."""
    for value in given.values():
        if np.ndim(value) == 2 and spec.captions:
            return [spec.captions.decode(row) for row in np.asarray(value)]
        return names_of(value, spec)
    return []


def held_out(model, load_split: Callable, num: int) -> dict:
    """`of_data` of `num` held-out examples, of the first split there is."""
    for split in ("validation", "test", "train") if text_of(model) else ():
        try:
            dataset = load_split(split)
        except BadInput as error:
            if getattr(error, "no_such_split", False):
                continue
            raise
        return of_data(model, dataset.fetch, np.arange(min(num, dataset.size)))
    return {}


def of_data(model, fetch, places: np.ndarray) -> dict:
    """{"text": tokens} of the data's own captions at `places`; {} without captions."""
    text = text_of(model)
    return {text.key: fetch(places)[text.key]} if text else {}
