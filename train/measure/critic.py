"""The critic of a GAN as a classifier: is it right, on new data too, and calibrated?"""

from typing import Any

import jax
import numpy as np

from gengen.conditions import labels_of
from gengen.metrics.ranking import calibration_error

from ..data.feed import order
from ..run.sampler import Sampler

NUM = 1_000


def critic_figures(trained, splits: dict, seed: int) -> dict[str, Any]:
    """{"critic": …}: what the critic says of real and of fake examples; {} without one.

    right_train and right_held_out are the shares of real examples on which it is
    right: apart from each other, it has learned the training examples by heart.
    calibration_error: how far its probabilities are from frequencies, on held-out data
    where there are any; absent if its game promises none.
    """
    model = trained.model
    if not hasattr(model, "game") or model.packing > 1:
        return {}
    held_out = next((s for s in ("validation", "test") if s in splits), None)
    found, margins = {}, None
    for name, split in {"train": "train", "held_out": held_out}.items():
        if split is not None:
            margins = margins_of(trained, splits[split], seed)
            found[f"right_{name}"] = float(np.mean(margins[0] > 0))
    if hasattr(model.game, "probability"):
        real, fake = (np.asarray(model.game.probability(m)) for m in margins)
        outcome = np.repeat([1, 0], [len(real), len(fake)])
        error = calibration_error(np.concatenate([real, fake]), outcome)
        found["calibration_error"] = error
    return {"critic": found}


def margins_of(trained, dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(the margins of real examples, of fakes in their place), each [N]."""
    model, params, state = trained.model, trained.params, trained.state
    num = min(NUM, dataset.size)
    batch = dataset.fetch(order(seed, 0, num, dataset.size))
    labels = labels_of(model.condition)
    given = {labels.key: batch[labels.key]} if labels else {}
    fake = Sampler(model, num)(params, state, jax.random.key(seed), num, given)
    logits, c = jax.jit(model.logits), model.condition.read(batch)
    real = logits(params, state, model.space.read(batch), c)
    fake = logits(params, state, fake, c)
    return model.game.margin(real, fake), model.game.margin(fake, real)
