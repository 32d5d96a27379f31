"""Augmentation of any model's training images, as `--augment` asks for it."""

from collections.abc import Mapping
from typing import Literal

from gengen.errors import BadInput

from .dataset import KEYS, Spec

Augmentation = Literal["flip", "shift"]


def augmented(losses: Mapping, names: tuple[Augmentation, ...], spec: Spec) -> dict:
    """The losses of augmented batches: each image is changed by itself, levels stay.

    The change is made within the step, by a key of its own for each loss, so that a
    resumed run sees the images which an uninterrupted one sees.

    Args:
        losses: {player: loss} of a model.
        names: "flip" mirrors an image with probability 1/2; "shift" moves it by up to
            an eighth of its shorter side, uniformly, and level 0 comes in; shifts come
            first, whatever the order of the names.
        spec: the data set; of binarised images, the levels are drawn last.
    """
    if not names and not spec.grey:
        return dict(losses)
    from gengen.augment import Binarise, Chain, Flip, Shift
    from gengen.objective import map_batch

    if names:
        spec.images_only(f"--augment {' '.join(names)}")
    if len(set(names)) < len(names):
        raise BadInput(f"--augment {' '.join(names)}: name each once")
    key = KEYS["images"]
    changes = {"shift": Shift(max(1, min(spec.shape[:2]) // 8), key), "flip": Flip(key)}
    drawn = (Binarise(spec.grey, key),) if spec.grey else ()
    change = Chain((*(changes[name] for name in changes if name in names), *drawn))
    return {player: map_batch(change, loss) for player, loss in losses.items()}
