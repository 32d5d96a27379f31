"""Points of the plane as a picture: samples, and the known modes if there are any."""

from pathlib import Path

import jax
import numpy as np

from ..data import gaussians
from ..files import written_atomically
from .sampler import Sampler

NUM = 2_500  # points in a picture


def is_plane(spec) -> bool:
    """Whether a data set's examples are points of the plane."""
    return spec.kind == "reals" and tuple(spec.shape) == (2,)


def save_scatter(path: Path, points: np.ndarray, spec, caption: str = "") -> Path:
    """Write points [N, 2], of the data's scale; circles are the known modes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(4, 4.2 if caption else 4))
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    reach = 2.4 * std
    if spec.name.partition(":")[0] == gaussians.PREFIX:
        centers, _ = gaussians.modes(spec.name)
        reach = 1.4 * np.abs(centers).max(axis=0)
        ax.scatter(*centers.T, s=90, facecolors="none", edgecolors="tab:orange")
    ax.scatter(*np.asarray(points).T, s=1.5, alpha=0.5, linewidths=0)
    for axis, m, r in zip("xy", mean, reach, strict=True):
        getattr(ax, f"set_{axis}lim")(m - r, m + r)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=7)
    if caption:
        ax.set_xlabel(caption, fontsize=8)
    figure.tight_layout()
    with written_atomically(path) as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
    return path


class Scatter:
    """The samples of a run on points: the same seeds at every step."""

    suffix = ".png"

    def __init__(self, model, spec, seed: int, batch_size: int):
        self.model, self.spec, self.key = model, spec, jax.random.key(seed)
        self._sampler = Sampler(model, max(batch_size, 500), few=True)

    def save(self, path: Path, train_state) -> Path:
        """Draw with the averaged parameters, write the PNG."""
        params = train_state.params if train_state.ema is None else train_state.ema
        x = self._sampler(params, train_state.state, self.key, NUM, {})
        return save_scatter(path, self.model.space.to_data(x), self.spec)
