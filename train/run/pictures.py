"""Sample grids and loss curves as PNG."""

from pathlib import Path

import numpy as np

from ..files import make_folder, written_atomically


def sample_grid(
    images: np.ndarray, columns: int, row_names=(), scale: int | None = None
):
    """uint8 [N, H, W, C] in rows of `columns` -> a PIL picture, pixels enlarged.

    row_names: captions at the left, one a row. scale: the side of one pixel; by
    default small images are enlarged to about 64.
    """
    from PIL import Image, ImageDraw

    n, height, width, depth = images.shape
    scale = max(1, 64 // max(height, width)) if scale is None else scale
    rows, gap = -(-n // columns), max(1, scale // 2)
    cell_h, cell_w = height * scale + gap, width * scale + gap
    margin = 8 + 7 * max(map(len, row_names)) if row_names else 0
    size = (margin + columns * cell_w + gap, rows * cell_h + gap)
    picture = Image.new("RGB", size, (96, 96, 112))
    for i, image in enumerate(images):
        tile = Image.fromarray(image[..., 0] if depth == 1 else image[..., :3])
        tile = tile.resize((width * scale, height * scale), Image.Resampling.NEAREST)
        row, column = divmod(i, columns)
        picture.paste(tile, (margin + gap + column * cell_w, gap + row * cell_h))
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(row_names[:rows]):
        middle = gap + row * cell_h + cell_h // 2
        draw.text((4, middle), name, anchor="lm", fill=(255, 255, 255))
    return picture


def save_grid(path: Path, images: np.ndarray, columns: int, row_names=()) -> Path:
    """Write the grid; a reader never sees half a file."""
    picture = sample_grid(images, columns, row_names)
    make_folder(path.parent)
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
