"""Outlier scores of a run, and how well they tell outliers from test images."""

from functools import partial

import numpy as np

from ..data.dataset import Dataset, take

LIKELIHOOD = "negative log-likelihood"
REGRET = "likelihood regret"


def map_over_batches(function, params, state, arrays: dict, options) -> np.ndarray:
    """`function(params, state, batch, key)` of all examples in `arrays`, compiled."""
    import jax

    from ..progress import counted, progress
    from ..run.heldout import batches, measure

    num = len(next(iter(arrays.values())))
    dataset = Dataset(None, num, partial(take, arrays), "")
    stream = batches(dataset, np.arange(num), options.batch_size)
    key = jax.random.key(options.seed)
    with progress("examples", num) as advance:
        stream = counted(stream, advance, min(num, options.batch_size))
        return measure(function, params, state, stream, num, key)


def image_scores(model, density, regret: bool) -> tuple[dict, dict]:
    """({name: score}, {name: why it is missing}) of what looks at images.

    density: the model as p(x), which `model` is if it is unconditional.
    """
    from gengen.errors import BadInput
    from gengen.tasks import outliers as tasks

    makers = {
        LIKELIHOOD: (tasks.NegativeLogLikelihood, density),
        "complexity-corrected": (tasks.ComplexityCorrected, density),
        "reconstruction error": (tasks.ReconstructionError, model),
        REGRET: (tasks.LikelihoodRegret, model),
    }
    scores, missing = {}, {}
    for name, (maker, argument) in makers.items():
        try:
            scores[name] = maker(argument)
        except BadInput as error:
            missing[name] = str(error)
    if REGRET in scores and not regret:
        del scores[REGRET]
        missing[REGRET] = "--regret-num 0"
    return scores, missing


def feature_scores(where: str, features: dict, known, labels, options) -> tuple:
    """({name: {set: scores}}, {name: why it is missing}) of distances of features.

    features: {set: [N, F]}; known: those of training images, with their labels.
    """
    import jax

    from gengen.tasks.outliers import FeatureDistance, Mahalanobis
    from gengen.types import HasFeatures, static

    @static
    class Given(HasFeatures):
        """Features that the batch holds."""

        def features(self, params, state, batch, key):
            return batch["features"]

    num, size = known.shape
    scores = {f"{where} feature distance": FeatureDistance(Given(), min(50, num))}
    missing = {}
    if num > size:
        scores[f"{where} Mahalanobis"] = Mahalanobis(Given())
    else:
        missing[f"{where} Mahalanobis"] = (
            f"{num:,} training images determine no covariance of {size:,} features"
        )
    values = {}
    for name, score in scores.items():
        state, function = {"reference": score.fit(known, labels)}, jax.jit(score)
        values[name] = {
            name_of_set: map_over_batches(function, {}, state, {"features": f}, options)
            for name_of_set, f in features.items()
        }
    return values, missing


def overflow(score: np.ndarray) -> np.ndarray:
    """Scores, infinite where float32 does not reach, be it as inf or as inf - inf.

    Far from the data an encoder may answer with a variance of e^100.
    """
    return np.where(np.isnan(score), np.inf, score)


def features_of(extractor, image: np.ndarray, spec) -> np.ndarray:
    """The extractor's features of levels."""
    from gengen.images import to_unit

    return extractor(np.asarray(to_unit(image, spec.levels)))[0]


def judged(values: dict[str, np.ndarray]) -> dict[str, dict]:
    """{outlier set: AUROC and average precision against "test", and the numbers}."""
    from gengen.metrics.ranking import auroc, auroc_standard_error, average_precision

    judgement, inside = {}, values["test"]
    for name, outside in values.items():
        if name == "test":
            continue
        score = np.concatenate([inside, outside])
        label = np.repeat([0, 1], [len(inside), len(outside)])
        judgement[name] = {
            "auroc": (area := auroc(score, label)),
            "standard_error": auroc_standard_error(area, len(outside), len(inside)),
            "average_precision": average_precision(score, label),
            "n_inliers": len(inside),
            "n_outliers": len(outside),
            "n_overflow": int(np.sum(np.isinf(outside))),
        }
    return judgement
