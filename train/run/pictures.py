"""Sample grids and loss curves as PNG."""

import math
from pathlib import Path

import numpy as np

from ..files import written_atomically

SIDE = 64  # of a small image in a grid, about
STRIP = 18  # height of a line of words
INK = (255, 255, 255)


def sample_grid(
    images: np.ndarray,
    columns: int,
    row_names=(),
    scale: int | None = None,
    column_names=(),
    caption: str = "",
):
    """uint8 [N, H, W, C] in rows of `columns` -> a PIL picture, pixels enlarged.

    Args:
        images: the tiles.
        columns: how many of them are a row.
        row_names: words at the left, one a row.
        scale: the side of one pixel; by default small images are enlarged to about 64.
        column_names: words above, one a column; what is longer goes on over the next
            columns, which are empty.
        caption: what the picture shows, below it.
    """
    from PIL import Image, ImageDraw, ImageFont

    n, height, width, depth = images.shape
    scale = max(1, SIDE // max(height, width)) if scale is None else scale
    rows, gap = -(-n // columns), max(1, scale // 2)
    cell_h, cell_w = height * scale + gap, width * scale + gap
    font = ImageFont.load_default(12)
    names = [font.getlength(_line(name)) for name in row_names[:rows]]
    left = 8 + math.ceil(max(names)) if any(names) else 0
    top = STRIP if column_names else 0
    shape = left + columns * cell_w + gap, top + rows * cell_h + gap
    below = _wrapped(caption, font, shape[0] - 8)
    size = shape[0], shape[1] + STRIP * len(below)
    picture = Image.new("RGB", size, (96, 96, 112))
    for i, image in enumerate(images):
        tile = Image.fromarray(image[..., 0] if depth == 1 else image[..., :3])
        tile = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        row, column = divmod(i, columns)
        picture.paste(tile, (left + gap + column * cell_w, top + gap + row * cell_h))
    draw = ImageDraw.Draw(picture)
    middles = [top + gap + row * cell_h + cell_h // 2 for row in range(rows)]
    starts = [left + gap + column * cell_w for column in range(columns)]
    words = [((4, y), name) for y, name in zip(middles, row_names, strict=False)]
    words += [((x, 9), name) for x, name in zip(starts, column_names, strict=False)]
    words += [((4, shape[1] + 8 + STRIP * i), line) for i, line in enumerate(below)]
    for place, line in words:
        draw.text(place, _line(line), font=font, anchor="lm", fill=INK)
    return picture


def _line(name: str) -> str:
    """A name as one line: what a font breaks lines at is a space."""
    return " ".join(str(name).split())


def _wrapped(text: str, font, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, one word at least in each."""
    lines = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def save_grid(
    path: Path, images: np.ndarray, columns: int, row_names=(), **words
) -> Path:
    """Write the grid, whole or not at all; words: those of `sample_grid`."""
    picture = sample_grid(images, columns, row_names, **words)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as file:
        picture.save(file, "PNG")
    return path


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] -> uint8 0 … 255, whatever the data set's levels.

    BadInput that names the first image (or row of images) that is not finite.
    """
    from gengen.images import require_finite

    x = np.asarray(x)
    require_finite(x, "image" if x.ndim == 4 else "row of images")
    return np.clip(np.round((x + 1.0) * 127.5), 0, 255).astype(np.uint8)


def curves(rows: list[dict], path: Path) -> Path:
    """Every metric of `metrics.jsonl`'s rows against the step, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = sorted({name for row in rows for name in row if "/" in name})
    columns = min(3, len(names))
    shape = (-(-len(names) // columns), columns)
    figure, axes = plt.subplots(
        *shape, figsize=(4 * columns, 2.6 * shape[0]), squeeze=False, sharex=True
    )
    for ax, name in zip(axes.flat, names, strict=False):
        points = [(row["step"], row[name]) for row in rows if name in row]
        ax.plot(*zip(*points, strict=True), marker="." if len(points) < 20 else "")
        ax.set_title(name, fontsize=10)
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    figure.supxlabel("step")
    figure.tight_layout()
    with written_atomically(path) as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
    return path
