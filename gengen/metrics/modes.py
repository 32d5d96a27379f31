"""Known mixtures: which of their modes samples reach, and how evenly."""

import math

import numpy as np
from scipy.spatial import KDTree
from scipy.special import rel_entr

from gengen.metrics.result import as_features, refuse_unless


def nearest_mode(samples, centers, radius: float) -> np.ndarray:
    """The index of the nearest centre of each sample, int [N]; -1 beyond `radius`.

    Args:
        samples: floats [N, F].
        centers: the modes, floats [K, F].
        radius: the largest distance at which a sample belongs to a mode, inclusive; the
            papers take three standard deviations of a mode.

    Srivastava et al. 2017, arXiv:1705.07761, section 4.

    >>> nearest_mode([[0.1], [5.0]], [[0.0], [9.0]], radius=0.5)
    array([ 0, -1])
    """
    samples, centers = as_features(samples, centers)
    distance, index = KDTree(centers).query(samples)
    return np.where(distance <= radius, index, -1)


def _histogram(assignment, num_modes: int) -> np.ndarray:
    given = np.asarray(assignment)
    refuse_unless(given.ndim == 1, f"Modes of shape {given.shape}: give them as [N].")
    assignment = given.astype(int)
    refuse_unless(
        np.array_equal(given, assignment), "Modes are integers: give -1 for none."
    )
    outside = set(assignment.tolist()) - set(range(-1, num_modes))
    refuse_unless(
        not outside,
        f"Modes {outside} are not among {num_modes}: give -1 … {num_modes - 1}.",
    )
    return np.bincount(assignment[assignment >= 0], minlength=num_modes)


def modes_found(assignment, num_modes: int, at_least: int = 1) -> int:
    """The number of modes that have at least so many samples.

    Args:
        assignment: integers [N] by `nearest_mode`; -1 for none.
        num_modes: K, the number of modes.
        at_least: the number of samples that make a mode found.

    >>> modes_found([0, 0, 2, -1], num_modes=3)
    2
    """
    return int((_histogram(assignment, num_modes) >= at_least).sum())


def mode_kl(assignment, num_modes: int) -> float:
    """KL(histogram of assigned samples ‖ uniform) in nats: 0 at best, log K at worst.

    Samples of no mode (-1) do not count; NaN if there are no others.

    Args:
        assignment: integers [N] by `nearest_mode`; -1 for none.
        num_modes: K, the number of modes.

    Metz et al. 2017, arXiv:1611.02163; Srivastava et al. 2017, arXiv:1705.07761,
    section 4.

    >>> mode_kl([0, 1, 2, 2, 1, 0], num_modes=3)
    0.0
    """
    counts = _histogram(assignment, num_modes)
    if not counts.any():
        return math.nan
    return float(rel_entr(counts / counts.sum(), 1 / num_modes).sum())
