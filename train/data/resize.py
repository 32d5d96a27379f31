"""Pictures of one size: the shorter side is scaled, the centre is kept."""

import numpy as np


def fit(picture, size: int):
    """A size x size PIL image: shorter side scaled to `size`, then centre-cropped.

    Lanczos with the kernel widened when reducing, so that it is antialiased. The
    crop is done first, as a box in fractions of a pixel: it commutes with scaling.
    """
    from PIL import Image

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=box)


def fit_array(image: np.ndarray, size: int) -> np.ndarray:
    """`fit` of uint8 [H, W, C], C = 1 or 3."""
    from PIL import Image

    channels = image.shape[-1]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    return np.asarray(fit(picture, size)).reshape(size, size, channels)


def rule(size: int | None) -> str:
    """How `fit` made the pictures, in words for a note; empty where it did not."""
    if size is None:
        return ""
    return f"; shorter side scaled to {size} (Lanczos), centre-cropped"
