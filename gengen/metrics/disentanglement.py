"""Whether each factor of the data has one coordinate of a code to itself.

    MIG   mean over factors of (I(z_best; v) - I(z_second; v))/H(v)
    SAP   mean over factors of S_best - S_second, S the R² of a line from z_d to v

Both are 1 if every factor is a function of one coordinate that no other coordinate
knows, and 0 if of each factor two coordinates know as much. They need data whose
factors are known.

Chen et al. 2018, arXiv:1802.04942, section 4.1 (MIG); Kumar, Sattigeri and Balakrishnan
2018, arXiv:1711.00848, section 3 (SAP).
"""

import numpy as np

from gengen.errors import BadInput

BINS = 20


def binned(code: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Each coordinate as the number of one of `bins` equal intervals: int [N, D].

    >>> binned(np.array([[0.0], [0.4], [1.0]]), 2).ravel().tolist()
    [0, 0, 1]
    """
    low, high = code.min(0), code.max(0)
    place = (code - low) / np.where(high > low, high - low, 1.0) * bins
    return np.minimum(place.astype(int), bins - 1)


def entropy(values: np.ndarray) -> float:
    """The entropy of integers [N], in nats, by their frequencies.

    >>> round(entropy(np.array([0, 1])), 4)
    0.6931
    """
    p = np.bincount(values) / len(values)
    return float(-np.sum(p[p > 0] * np.log(p[p > 0])))


def mutual_information(code: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """I(code_d; factor_k) in nats, [D, K], of integers [N, D] and [N, K].

    >>> same = np.array([[0], [1]])
    >>> round(mutual_information(same, same).item(), 4)
    0.6931
    """

    def of(z, v):
        return entropy(z) + entropy(v) - entropy(z * (v.max() + 1) + v)

    return np.array([[of(z, v) for v in factors.T] for z in code.T])


def gaps(scores: np.ndarray) -> np.ndarray:
    """The best coordinate's score over the second's, [K], of scores [D, K].

    >>> gaps(np.array([[1.0], [0.25]])).tolist()
    [0.75]
    """
    first, second = np.sort(scores, axis=0)[::-1][:2]
    return first - second


def mutual_information_gap(code: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(I(z_best; v_k) - I(z_second; v_k))/H(v_k) of each factor, [K]; MIG is the mean.

    Args:
        code: floats [N, D], D at least 2; discretised into 20 bins.
        factors: integers from 0 on, [N, K], none constant.

    >>> v = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> mutual_information_gap(v.astype(float), v).round(6).tolist()
    [1.0, 1.0]
    """
    _check(code, factors)
    information = mutual_information(binned(code), factors)
    return gaps(information) / [entropy(v) for v in factors.T]


def attribute_predictability(code: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """R²(z_best, v_k) - R²(z_second, v_k) of each factor, [K]; SAP is the mean.

    Args:
        code: floats [N, D], D at least 2; a coordinate that is constant scores 0.
        factors: numbers [N, K], of ordered factors, none constant.

    >>> v = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> attribute_predictability(v.astype(float), v).round(6).tolist()
    [1.0, 1.0]
    """
    _check(code, factors)
    z, v = (x - x.mean(0) for x in (np.asarray(code, float), factors))
    spread = np.outer(np.sum(z**2, 0), np.sum(v**2, 0))
    return gaps((z.T @ v) ** 2 / np.where(spread > 0, spread, np.inf))


def _check(code: np.ndarray, factors: np.ndarray) -> None:
    if code.ndim != 2 or code.shape[1] < 2 or len(code) != len(factors):
        raise BadInput(
            f"codes of shape {list(code.shape)} for {len(factors)} rows of factors: a "
            "gap takes vectors of at least 2 coordinates, a row per example"
        )
    if np.any(factors.min(0) == factors.max(0)):
        raise BadInput("a factor is constant in these examples: leave it out")
