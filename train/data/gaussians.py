"""Points of the plane from known Gaussians: a ring of 8, or a grid of 25.

What a model leaves out is counted, not guessed: the modes are known. Srivastava et al.
2017, arXiv:1705.07761, section 4; Lin et al. 2018, arXiv:1712.04086, section 4.1.
"""

import functools

import numpy as np

from gengen.errors import BadInput

from .dataset import Dataset, Spec, check_split, take

PREFIX = "gaussians"
SIZES = {"train": 100_000, "validation": 2_500, "test": 2_500}
_STD = {"ring": 0.01, "grid": 0.05}


def gaussians(name: str, split: str) -> Dataset:
    """The split of "gaussians:ring" or "gaussians:grid", without labels."""
    check_split(name, split, SIZES)
    centers, std = modes(name)
    # A mode for each example in turn; Philox' raw stream is NumPy's in every version.
    num, seed = SIZES[split], list(SIZES).index(split)
    bits = np.random.Philox(seed).random_raw(2 * num)
    u = (bits.reshape(2, num) >> 11) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log1p(-u[0])), 2 * np.pi * u[1]
    noise = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = centers[np.arange(num) % len(centers)] + std * noise
    # A model computes in tens of a mode's width, as large as its networks can see.
    spec = Spec(name, (2,), 0, 0, (), "reals", (0.0, 0.0), (10 * std, 10 * std))
    note = (
        f"{name}: {num:,} points from {len(centers)} Gaussians of standard deviation "
        f"{std:g}; split {split} by the random numbers"
    )
    fetch = functools.partial(take, {"latent": points.astype(np.float32)})
    return Dataset(spec, num, fetch, note)


def modes(name: str) -> tuple[np.ndarray, float]:
    """(centres [K, 2], the standard deviation of each Gaussian) of a data set.

    The ring has the radius 1; neighbours in the grid are 2 apart, from -4 to 4.
    """
    kind = name.partition(":")[2]
    if kind not in _STD:
        raise BadInput(f"{name!r} is no set of points: write gaussians:ring or :grid")
    if kind == "ring":
        angles = 2 * np.pi * np.arange(8) / 8
        centers = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        axis = np.linspace(-4.0, 4.0, 5)
        centers = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    return np.round(centers, 12), _STD[kind]
