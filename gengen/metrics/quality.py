"""All metrics of samples at once, each a `Result`; and how many samples each needs."""

import warnings
from collections.abc import Sequence

from gengen.metrics import frechet, inception, kernel, neighbours
from gengen.metrics.frechet import (
    Moments,
    frechet_at_infinity,
    frechet_distance,
    singular_note,
    sizes_of_line,
)
from gengen.metrics.inception import inception_score
from gengen.metrics.kernel import kernel_distance, samples_per_subset
from gengen.metrics.neighbours import density_coverage, precision_recall
from gengen.metrics.result import Result, as_features, refuse_unless

# Metric -> the least numbers of real and of fake samples that it can be made of.
LEAST_SAMPLES = {
    "frechet_distance": (frechet.LEAST, frechet.LEAST),
    "frechet_distance_at_infinity": (frechet.LEAST, frechet.LEAST_AT_INFINITY),
    "kernel_distance": (kernel.LEAST, kernel.LEAST),
    "precision": (neighbours.K_PRECISION + 1, neighbours.K_PRECISION + 1),
    "recall": (neighbours.K_PRECISION + 1, neighbours.K_PRECISION + 1),
    "density": (neighbours.K_DENSITY + 1, 2),
    "coverage": (neighbours.K_DENSITY + 1, 2),
    "inception_score": (0, inception.SPLITS),
}


def possible_metrics(n_real: int, n_fake: int) -> tuple[str, ...]:
    """The metrics that `sample_quality` can make of so many samples, in its order.

    Args:
        n_real: the number of real samples.
        n_fake: the number of fake samples.

    >>> possible_metrics(5, 3)
    ('frechet_distance', 'frechet_distance_at_infinity', 'kernel_distance')
    """
    return tuple(
        name
        for name, (real, fake) in LEAST_SAMPLES.items()
        if n_real >= real and n_fake >= fake
    )


def _check_names(names: Sequence[str], n_real: int, n_fake: int) -> None:
    for name in names:
        known = ", ".join(LEAST_SAMPLES)
        refuse_unless(name in LEAST_SAMPLES, f"No metric {name}: there are {known}.")
        real, fake = LEAST_SAMPLES[name]
        refuse_unless(
            n_real >= real and n_fake >= fake,
            f"{name} of {n_real} real and {n_fake} fake samples: give at least {real} "
            f"and {fake}, or the names of `possible_metrics`.",
        )


def sample_quality(
    real,
    fake,
    extractor: str,
    probs=None,
    seed: int = 0,
    real_moments: Moments | None = None,
    fake_moments: Moments | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, Result]:
    """The metrics of two sets of features by name, each a `Result`.

    Warns, and notes, where a covariance is singular: of n <= F samples, or for the
    extrapolation at the smallest size of its line.

    Args:
        real: features [N, F].
        fake: features [M, F].
        extractor: the name of what made the features, for the record.
        probs: [M, K], the fakes' class probabilities, for the inception score.
        seed: the seed of subsets, parts and orders.
        real_moments: moments of more real samples than the features kept, for the
            Fréchet distances, which state their n; None for those of `real`.
        fake_moments: the same of the fakes, for the distance at n.
        names: the metrics to compute; None for all, the inception score if there are
            probabilities. `possible_metrics` says which N and M allow.

    Raises BadInput for a metric that N and M do not allow, before any is computed.

    >>> x = [[0.0], [1.0], [2.0], [3.0]]
    >>> quality = sample_quality(x, x, "pixels", names=["frechet_distance", "recall"])
    >>> [(name, result.value) for name, result in quality.items()]
    [('frechet_distance', 0.0), ('recall', 1.0)]
    """
    real, fake = as_features(real, fake)
    if names is None:
        names = [
            name
            for name in LEAST_SAMPLES
            if name != "inception_score" or probs is not None
        ]
    _check_names(names, len(real), len(fake))
    if "inception_score" in names:
        refuse_unless(
            probs is not None and len(probs) == len(fake),
            f"Class probabilities of {0 if probs is None else len(probs)} samples do "
            f"not belong to {len(fake)} fakes: give one row per fake.",
        )
    a = frechet.moments(real) if real_moments is None else real_moments
    b = frechet.moments(fake) if fake_moments is None else fake_moments
    as_features(real, a.mean[None], b.mean[None])
    found = {
        **_frechet(fake, a, b, seed, names),
        **_kernel(real, fake, seed, names),
        **_neighbours(real, fake, names),
    }
    if "inception_score" in names:
        score, error = inception_score(probs, seed=seed)
        found["inception_score"] = (score, 0, len(fake), error, "")
    if notes := [note for *_, note in found.values() if note]:
        warnings.warn(notes[0], stacklevel=2)
    return {
        name: Result(float(value), n_real, n_fake, extractor, error, note)
        for name, (value, n_real, n_fake, error, note) in found.items()
    }


# Each returns {name: (value, n_real, n_fake, standard error, note)} for `names`.


def _frechet(fake, a: Moments, b: Moments, seed: int, names) -> dict[str, tuple]:
    found, dim = {}, fake.shape[1]
    if "frechet_distance" in names:
        note = singular_note(min(a.n, b.n), dim)
        found["frechet_distance"] = (frechet_distance(a, b), a.n, b.n, None, note)
    if "frechet_distance_at_infinity" in names:
        smallest = int(sizes_of_line(*fake.shape)[0])
        note = singular_note(min(a.n, smallest), dim, more_than=2 * dim + 1)
        value = frechet_at_infinity(a, fake, seed).value
        found["frechet_distance_at_infinity"] = (value, a.n, len(fake), None, note)
    return found


def _kernel(real, fake, seed: int, names) -> dict[str, tuple]:
    if "kernel_distance" not in names:
        return {}
    fewer = min(len(real), len(fake))
    subsets = min(10, fewer // 2)
    used = subsets * samples_per_subset(fewer, subsets)
    value, error = kernel_distance(real, fake, subsets, seed=seed)
    return {"kernel_distance": (value, used, used, error, "")}


def _neighbours(real, fake, names) -> dict[str, tuple]:
    values = {}
    if {"precision", "recall"} & set(names):
        values["precision"], values["recall"] = precision_recall(real, fake)
    if {"density", "coverage"} & set(names):
        values["density"], values["coverage"] = density_coverage(real, fake)
    numbers = len(real), len(fake), None, ""
    return {name: (v, *numbers) for name, v in values.items() if name in names}
