"""How well the codes of a run tell the known factors of its data apart."""

from typing import Any

import jax
import numpy as np

from gengen.metrics.disentanglement import (
    attribute_predictability,
    mutual_information_gap,
)
from gengen.types import Encodes

from ..data.dataset import Dataset
from ..run.heldout import batches, subset
from ..run.workdir import OpenRun


def disentanglement(trained: OpenRun, dataset: Dataset, options) -> dict[str, Any]:
    """{"disentanglement": MIG and SAP, their mean and of each factor}, if both exist.

    {} for a model without a posterior of a vector, and for data of unknown factors.
    """
    model = trained.model
    vector = isinstance(model, Encodes) and len(model.latent_shape) == 1
    if not (vector and model.latent_shape[0] > 1 and dataset.factors):
        return {}
    num = min(dataset.size, max(options.likelihood_num, 1000))
    places, codes = subset(dataset, num), []
    features, key = jax.jit(model.features), jax.random.key(options.seed)
    for batch in batches(dataset, places, options.batch_size):
        codes.append(np.asarray(features(trained.params, trained.state, batch, key)))
    code = np.concatenate(codes)[:num].astype(np.float64)
    factors = dataset.factors(places)
    result = {}
    for name, gap in (
        ("mig", mutual_information_gap(code, factors)),
        ("sap", attribute_predictability(code, factors)),
    ):
        each = dict(zip(dataset.spec.factors, map(float, gap), strict=True))
        result[name] = {"value": float(np.mean(gap)), **each}
    return {"disentanglement": {"num": num, **result}}
