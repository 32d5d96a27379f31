"""What guides the sampler of a run beside its own network: networks of other runs."""

import dataclasses
from pathlib import Path

from gengen.errors import BadInput
from train.workdir import Trained, open_workdir


def guided(trained: Trained, options) -> Trained:
    """The run with what --classifier, --classifier-scale and --guide ask for.

    Their parameters travel in the state, as "classifier" and "worse".
    """
    scale = options.classifier_scale
    if scale is not None and options.classifier is None:
        raise BadInput(
            f"--classifier-scale {scale}: of which classifier? give --classifier too"
        )
    for name, change in (("classifier", by_classifier), ("guide", by_worse)):
        if path := getattr(options, name):
            if not hasattr(trained.model, "guides"):
                raise BadInput(
                    f"--{name} {path} guides a diffusion model, and the run is of a "
                    f"{type(trained.model).__name__}: leave it out"
                )
            other = open_workdir(path)
            same_data(trained, other, name, path)
            trained = change(trained, other, path, options)
    return trained


def same_data(trained: Trained, other: Trained, name: str, path: Path) -> None:
    """BadInput for a network of other images."""
    kinds = [(x.shape, x.levels) for x in (trained.record.data, other.record.data)]
    if kinds[0] != kinds[1]:
        (ours, levels), (theirs, others) = kinds
        raise BadInput(
            f"--{name} {path} is of images {theirs} of {others} levels, the run of "
            f"{ours} of {levels}: take one that was trained on the run's data set"
        )


def by_classifier(trained: Trained, other: Trained, path: Path, options) -> Trained:
    """Guided by a classifier of noisy images."""
    from gengen.models.classifier import ClassifierGuide

    noisy, classes = getattr(other.model, "path", None), other.record.data.num_classes
    if not hasattr(other.model, "log_prob_labels"):
        raise BadInput(
            f"--classifier {path} holds a {other.record.experiment}, not a classifier: "
            "train one with python -m train classifier --path NAME --workdir DIR"
        )
    if noisy != trained.model.process.path:
        seen = "clean images" if noisy is None else f"noise along {noisy}"
        raise BadInput(
            f"--classifier {path} has seen {seen}, and the sampler's noise is along "
            f"{trained.model.process.path}: train one with --path of that name"
        )
    if trained.model.num_classes not in (0, classes):
        raise BadInput(
            f"--classifier {path} knows {classes} classes, the run "
            f"{trained.model.num_classes}: take one trained on the run's data set"
        )
    scale = 1.0 if options.classifier_scale is None else options.classifier_scale
    guide = ClassifierGuide(other.model, classes, scale)
    return changed(trained, {"guides": (guide,)}, {"classifier": other.params})


def by_worse(trained: Trained, other: Trained, path: Path, options) -> Trained:
    """Guided away from a worse network, by 2 where the run has no scale."""
    if not hasattr(other.model, "guides"):
        raise BadInput(
            f"--guide {path} holds a {other.record.experiment}, not a diffusion model: "
            "take a shorter or smaller run of the same kind"
        )
    if other.model.num_classes not in (0, trained.model.num_classes):
        raise BadInput(
            f"--guide {path} needs a class, which the run has not: take an "
            "unconditional one"
        )
    own = trained.model.guidance
    own = dataclasses.replace(own, scale=2.0 if own.scale == 1 else own.scale)
    values = {"worse": other.model, "guidance": own}
    return changed(trained, values, {"worse": other.params})


def changed(trained: Trained, values: dict, state: dict) -> Trained:
    """The run with other values of its model, and more arrays."""
    model = dataclasses.replace(trained.model, **values)
    experiment = dataclasses.replace(trained.experiment, model=model)
    state = {**trained.state, **state}
    return dataclasses.replace(trained, experiment=experiment, state=state)


def identity(trained: Trained) -> str | None:
    """What tells samples under these guides from others; None without any."""
    from train.checkpoint import digest_of

    names = [name for name in ("classifier", "worse") if name in trained.state]
    return digest_of({name: trained.state[name] for name in names}) if names else None
