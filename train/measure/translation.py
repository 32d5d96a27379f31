"""How good a translation between two domains is, where the true partners are known.

A CycleGAN's losses can be satisfied by a map that is not the true one: with its classes
permuted, or with the image hidden in the translation (Chu et al. 2017,
arXiv:1712.02950). Known pairs, which training did not see, tell:

    error       root mean square to the true partner, pixels in [0, 1]
    accuracy    of a classifier on translations, beside that on the true partners
    retrieval   the rank of the true partner among all, by distance; 1 is the best
    diagonal    translations that keep their class, a mean over classes; and the class
                that most of each class become
    cycle       root mean square of F(G(x)) - x, then with noise of 1/255 on G(x): what
                is hidden in low bits is lost
"""

from collections.abc import Callable
from typing import Any

import numpy as np

LEVEL = 1.0 / 255.0  # of pixels in [0, 1]


def figures(
    x: np.ndarray,
    partner: np.ndarray,
    translate: Callable,
    back: Callable,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of pixels, of images in [-1, 1] and their true partners, [N, …]."""
    y = translate(x)
    noise = 2.0 * LEVEL * np.random.default_rng(seed).standard_normal(y.shape)
    error = root_mean_square(y, partner)
    cycle = root_mean_square(back(y), x)
    noisy = root_mean_square(back((y + noise).astype(np.float32)), x)
    rank = ranks(y, partner)
    return {
        "num": len(x),
        "error": error,
        "error_of_a_copy": root_mean_square(x, partner),
        "mean_rank": float(rank.mean()),
        "first_rank_share": float((rank == 1).mean()),
        "cycle_error": cycle,
        "cycle_error_under_noise": noisy,
    }


def root_mean_square(x: np.ndarray, y: np.ndarray) -> float:
    """√E (x - y)² of images in [-1, 1], in units of [0, 1].

    >>> root_mean_square(np.array([-1.0, 1.0]), np.array([1.0, -1.0]))
    1.0
    """
    return float(np.sqrt(np.mean(np.square((x - y) / 2.0, dtype=np.float64))))


def ranks(y: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """The rank of each row's own partner among all by Euclidean distance, int [N].

    Ties count half.

    >>> ranks(np.array([[0.0], [1.0]]), np.array([[0.9], [1.1]])).tolist()
    [1.0, 1.5]
    """
    y, partner = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (y, partner))
    square = (y**2).sum(1)[:, None] + (partner**2).sum(1) - 2.0 * y @ partner.T
    square = np.round(square, 9)  # of rounding, no order
    own = np.diagonal(square)[:, None]
    return 1.0 + (square < own).sum(1) + ((square == own).sum(1) - 1) / 2.0


def class_figures(
    train: tuple[np.ndarray, np.ndarray],
    y: np.ndarray,
    partner: np.ndarray,
    label: np.ndarray,
    classes: int,
) -> dict[str, Any]:
    """Figures of classes, by a support vector machine of the target domain's pixels.

    Args:
        train: images and labels of the target domain to learn from.
        y: translations.
        partner: their true partners.
        label: their classes.
        classes: how many there are.
    """
    from sklearn.svm import SVC

    def flat(x):
        return np.asarray(x).reshape(len(x), -1)

    machine = SVC(C=10.0).fit(flat(train[0]), train[1])
    said, right = machine.predict(flat(y)), machine.predict(flat(partner))
    table = np.zeros((classes, classes))
    np.add.at(table, (label, said), 1)
    table /= np.maximum(table.sum(1, keepdims=True), 1)
    return {
        "accuracy": float((said == label).mean()),
        "accuracy_of_partners": float((right == label).mean()),
        "diagonal": float(np.diagonal(table)[np.unique(label)].mean()),
        "becomes": table.argmax(1).tolist(),
        "class_table": np.round(table, 3).tolist(),
    }
