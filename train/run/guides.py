"""What guides the sampler of a run beside its own network: networks of other runs."""

import dataclasses
from pathlib import Path

from gengen.conditions import Labels, labels_of
from gengen.errors import BadInput
from gengen.models.diffusion import Diffusion
from gengen.types import Guides, Variables

from ..cli.doors import command
from .asked import text_of
from .workdir import OpenRun, open_workdir


def guided(trained: OpenRun, options) -> OpenRun:
    """The run with what --classifier, --classifier-scale and --guide ask for.

    Their arrays travel in state["frozen"], as "classifier" and "guide".
    """
    scale = options.classifier_scale
    if scale is not None and options.classifier is None:
        raise BadInput(
            f"--classifier-scale {scale}: of which classifier? give --classifier too"
        )
    for name, change in (("classifier", by_classifier), ("guide", by_model)):
        if path := getattr(options, name):
            if not isinstance(trained.model, Diffusion):
                raise BadInput(
                    f"--{name} {path} guides a diffusion model, and the run is of a "
                    f"{type(trained.model).__name__}: leave it out"
                )
            other = open_workdir(path)
            same_data(trained, other, name, path)
            trained = change(trained, other, path, options)
    return trained


def same_data(trained: OpenRun, other: OpenRun, name: str, path: Path) -> None:
    """BadInput for a network of other images."""
    kinds = [(x.shape, x.levels) for x in (trained.record.data, other.record.data)]
    if kinds[0] != kinds[1]:
        (ours, levels), (theirs, others) = kinds
        raise BadInput(
            f"--{name} {path} is of images {theirs} of {others} levels, the run of "
            f"{ours} of {levels}: take one that was trained on the run's data set"
        )


def by_classifier(trained: OpenRun, other: OpenRun, path: Path, options) -> OpenRun:
    """Guided by a classifier, or a CLIP, of noisy images."""
    from gengen.models.classifier import ClassifierGuide

    if not isinstance(other.model, Guides):
        raise BadInput(
            f"--classifier {path} holds a {other.record.experiment}, not a classifier: "
            f"train one with {command('classifier')} --path NAME --workdir DIR"
        )
    noisy = other.model.path
    if noisy != trained.model.process.path:
        seen = "clean images" if noisy is None else f"noise along {noisy}"
        raise BadInput(
            f"--classifier {path} has seen {seen}, and the sampler's noise is along "
            f"{trained.model.process.path}: train one with --path of that name"
        )
    same_target(trained, other, path)
    scale = 1.0 if options.classifier_scale is None else options.classifier_scale
    guide = ClassifierGuide(other.model, scale)
    return changed(trained, "classifier", other, guides=(guide,))


def same_target(trained: OpenRun, other: OpenRun, path: Path) -> None:
    """BadInput for a guide to other classes, or to captions of other words."""
    target, run = other.model.target, trained.record.data
    if isinstance(target, Labels):
        own = labels_of(trained.model.condition)
        if own not in (None, target):
            raise BadInput(
                f"--classifier {path} knows {target.num} classes, the run {own.num}: "
                "take one trained on the run's data set"
            )
        return
    if run.captions != other.record.data.captions:
        raise BadInput(
            f"--classifier {path} reads captions of {other.record.data.name}, and those"
            f" of {run.name} have other words: take one trained on the run's data set"
        )
    if text_of(trained.model) not in (None, target):
        raise BadInput(
            f"--classifier {path} guides to a caption, by {target}, and the run has "
            f"{text_of(trained.model)}: take a run that is not conditioned on captions"
        )


def by_model(trained: OpenRun, other: OpenRun, path: Path, options) -> OpenRun:
    """Guided away from a worse network, by 2 where the run has no scale."""
    if not isinstance(other.model, Diffusion):
        raise BadInput(
            f"--guide {path} holds a {other.record.experiment}, not a diffusion model: "
            "take a shorter or smaller run of the same kind"
        )
    if not set(other.model.condition.names) <= set(trained.model.condition.names):
        raise BadInput(
            f"--guide {path} needs a class, which the run has not: take an "
            "unconditional one"
        )
    if other.model.process != trained.model.process:
        raise BadInput(
            f"--guide {path} is of {other.model.process}, the run of "
            f"{trained.model.process}: guidance needs two of one path and prediction"
        )
    scale = trained.model.sampler.guidance.scale
    scale = 2.0 if scale == 1 else scale
    return changed(trained, "guide", other, scale=scale, model=other.model)


def changed(trained: OpenRun, name: str, other: OpenRun, **values) -> OpenRun:
    """The run with other values of its sampler, and another run's arrays."""
    sampler = trained.model.sampler.replace(**values)
    model = dataclasses.replace(trained.model, sampler=sampler)
    experiment = dataclasses.replace(trained.experiment, model=model)
    frozen = {name: Variables(other.params, other.state)}
    frozen = {**trained.state.get("frozen", {}), **frozen}
    state = {**trained.state, "frozen": frozen}
    return dataclasses.replace(trained, experiment=experiment, state=state)


def identity(trained: OpenRun) -> str | None:
    """What tells samples under these guides from others; None without any."""
    from .digests import digest_of

    frozen = trained.state.get("frozen", {})
    names = [name for name in ("classifier", "guide") if name in frozen]
    return digest_of({name: frozen[name].params for name in names}) if names else None
