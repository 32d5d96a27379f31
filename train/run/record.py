"""The record of a run in its workdir: which experiment it is, with which options.

`experiment.json` holds the experiment's name, every keyword it was called with and
the data set's spec, so that a workdir alone rebuilds the model: for resuming,
sampling, evaluation. It needs no data set and executes nothing.
"""

import contextlib
import dataclasses
import inspect
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gengen.errors import BadInput

from ..cli.doors import command
from ..data.dataset import READER, Dataset, Spec
from ..data.split import PARTS
from ..experiments.experiment import (
    Experiment,
    Reference,
    second_stage,
    with_perceptual,
    with_teacher,
)
from ..files import write_json
from .lock import locked

FILE = "experiment.json"
FIT = "fit"  # the experiment of a run that `run.library.fit` trained


@dataclasses.dataclass(frozen=True)
class Record:
    """What `experiment.json` says: enough to build the experiment again."""

    experiment: str
    options: dict[str, Any]  # the experiment function's keywords
    data_options: dict[str, Any]  # dataset, image_size, levels, seed, examples, …
    data: Spec
    frozen: dict[str, Reference] = dataclasses.field(default_factory=dict)
    digests: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    "{split: digest} of the data, as `Dataset.digest` makes it; {} of older versions."
    initial: Reference | None = None
    "The run that it started from, by --init-from; None for random parameters."
    description: dict[str, str] = dataclasses.field(default_factory=dict)
    "What `fit` was given, its model and optimisers; {} of an experiment."
    latents: Spec | None = None
    "What the first stage makes of the data, whose model it is; None without one."

    def build(
        self, autoencoder: Any = None, teacher: Any = None, perceptual: Any = None
    ) -> Experiment:
        """The experiment, from its function and keywords.

        Args:
            autoencoder: the model of the first stage; without it, the model of a run
                with one is that of the latents alone.
            teacher: the model of the run that this one learns from.
            perceptual: the classifier in whose maps a first stage compares images.
        """
        from ..experiments import EXPERIMENTS, NOT_ONLY_IMAGES
        from ..experiments.fit import fit

        if self.experiment == FIT:
            fit(self.data, **self.options)
        if self.experiment not in NOT_ONLY_IMAGES:
            self.data.images_only(f"the experiment {self.experiment}")
        if self.latents is not None:
            check_latents(self.experiment, self.latents)
        data = self.latents or self.data
        experiment = EXPERIMENTS[self.experiment](data, **self.options)
        experiment = with_teacher(experiment, teacher, self.experiment)
        experiment = with_perceptual(experiment, perceptual, self.experiment)
        if autoencoder is None:
            return experiment
        return second_stage(experiment, autoencoder)

    def as_json(self) -> dict:
        """Plain dictionaries and lists; the data options stand under "run"."""
        fields = {**dataclasses.asdict(self), "data": self.data.as_json()}
        fields["latents"] = self.latents and self.latents.as_json()
        fields["run"] = fields.pop("data_options")
        return json.loads(json.dumps(fields))


def save(folder: Path, record: Record, **notes) -> None:
    """Write the record, with notes beside it; the folder is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    if note(folder, "saved"):
        notes["saved"] = True
    fields = {**record.as_json(), **notes}
    write_json(folder / FILE, fields)


def note(folder: Path, name: str) -> Any:
    """A note beside the record in a folder; None if there is none."""
    try:
        return json.loads((folder / FILE).read_text()).get(name)
    except _UNREADABLE:
        return None


_UNREADABLE = OSError, ValueError, TypeError, LookupError, AttributeError
_UNREADABLE += (RecursionError,)


def load(workdir: Path) -> Record:
    """The workdir's record, or BadInput: no run there, or not one of gengen's."""
    path = Path(workdir) / FILE
    check_name(workdir)
    if not path.exists():
        raise BadInput(
            f"{workdir} holds no run (there is no {FILE}): train one with "
            f"{command('EXPERIMENT')} --workdir {workdir}"
        )
    try:
        return _record(json.loads(path.read_text()))
    except _UNREADABLE as error:
        raise BadInput(
            f"{path} is not the record of a run that this version can read "
            f"({str(error)[:200]!r}): restore the file, or take another --workdir"
        ) from error


def check_latents(experiment: str, latents: Spec) -> None:
    """BadInput for an experiment whose network is not for these latents."""
    from ..experiments import OF_LATENTS

    if experiment not in (models := OF_LATENTS[latents.kind]):
        what = {"symbols": "codes", "reals": "real numbers"}[latents.kind]
        raise BadInput(
            f"{latents.name} makes {what} of images, and {experiment} models images: "
            f"take {' or '.join(models)}"
        )
    if latents.kind == "reals" and len(latents.shape) != 3:
        raise BadInput(
            f"{latents.name} makes vectors of {latents.shape[0]} numbers of images, "
            f"and the network of {experiment} is for maps: take a first stage with "
            "--architecture conv"
        )


def options_of(experiment: str) -> dict[str, Any]:
    """{option: its type, with bounds} of an experiment's keywords."""
    from ..experiments import EXPERIMENTS
    from ..experiments.fit import fit

    return get_type_hints(EXPERIMENTS.get(experiment, fit), include_extras=True)


def _record(raw: dict) -> Record:
    """The record that a JSON document says; every value is of its declared type."""
    from ..cli.bounds import check_values
    from ..cli.options import IDENTITY, RunOptions
    from ..experiments import EXPERIMENTS
    from ..experiments.fit import fit

    known = {**EXPERIMENTS, FIT: fit}.get(raw["experiment"])
    if known is None:
        raise ValueError(f"unknown experiment {raw['experiment']!r}")
    parameters = list(inspect.signature(known).parameters.values())[1:]
    if unknown := raw["options"].keys() - {p.name for p in parameters}:
        raise ValueError(f"unknown keywords {sorted(unknown)}")
    options = {p.name: raw["options"].get(p.name, p.default) for p in parameters}
    options = {name: _as_tuple(value) for name, value in options.items()}
    data = Spec.from_json(raw["data"])
    of_run = get_type_hints(RunOptions)
    others = ("accumulate", "augment", "parallel", "on_bad_record")
    hints = {name: of_run[name] for name in (*IDENTITY, *others)}
    hints |= {"examples": int, "left_out": tuple[str, ...], "reader": int}
    run = {name: _as_tuple(value) for name, value in raw["run"].items()}
    for values, types in (
        (options, get_type_hints(known)),
        (run, hints),
        (vars(data), get_type_hints(Spec)),
    ):
        for name, value in values.items():
            if not fits(value, types[name]):
                raise ValueError(f"{name} is {value!r}")
    bounds = get_type_hints(RunOptions, include_extras=True)
    bounds |= options_of(raw["experiment"])
    check_values({**run, **options}, bounds)
    if not data.is_possible():
        raise ValueError(f"data {data}")
    frozen = {n: Reference(**fields) for n, fields in raw.get("frozen", {}).items()}
    initial = Reference(**raw["initial"]) if raw.get("initial") else None
    for reference in (*frozen.values(), *([initial] if initial else [])):
        types = {"workdir": str, "step": int, "digest": str}
        if not all(fits(getattr(reference, name), types[name]) for name in types):
            raise ValueError(f"{reference}")
    latents = Spec.from_json(raw["latents"]) if raw.get("latents") else None
    if latents and not (
        all(fits(v, get_type_hints(Spec)[n]) for n, v in vars(latents).items())
        and latents.is_possible()
        and latents.kind in ("symbols", "reals")
        and frozen
    ):
        raise ValueError(f"latents {latents}")
    digests, description = raw.get("digests", {}), raw.get("description", {})
    for words in (*digests.values(), description):
        if not all(fits(value, str) for value in words.values()):
            raise ValueError(f"digests are {digests!r}, description {description!r}")
    known = (frozen, digests, initial, description, latents)
    return Record(raw["experiment"], options, run, data, *known)


def reader_of(workdir: Path, fresh: bool = False) -> int:
    """The rules by which the run in a workdir reads: those that it began with."""
    if fresh or not (workdir / FILE).exists():
        return READER
    return load(workdir).data_options.get("reader", 1)


def with_digests(record: Record, load_split: Callable[[str], Dataset]) -> Record:
    """The record, with a digest of every split that can be read."""
    digests = {}
    for split in PARTS:
        with contextlib.suppress(BadInput):  # training or evaluation will say it
            digests[split] = load_split(split).digest()
    return dataclasses.replace(record, digests=digests)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as signatures declare it; an int is a float."""
    of = get_args(hint)
    if get_origin(hint) is Literal:
        return any(value is one or value == one for one in of)
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        each = of[:1] * len(value) if of[1:] == (...,) else of
        return len(value) == len(each) and all(map(fits, value, each))
    if of:  # a union
        return any(fits(value, one) for one in of)
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint  # NoneType too


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_name(workdir: Path) -> None:
    """BadInput for a folder whose name checkpoints cannot have."""
    try:
        str(Path(workdir).absolute()).encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"--workdir {str(workdir)!a}: the folder's name is not UTF-8, so no "
            "checkpoint could be saved in it: take another name"
        ) from error


def set_aside(workdir: Path) -> None:
    """Move the run in a workdir to the first free WORKDIR.old-N; nothing is lost.

    BadInput if a process trains there.
    """
    if not (workdir / FILE).exists():
        return  # `refuse_other_run` answers for what else may be there
    aside = (workdir.with_name(f"{workdir.name}.old-{n}") for n in itertools.count(1))
    where = next(path for path in aside if not path.exists())
    with locked(workdir):
        workdir.rename(where)
    print(f"the run in {workdir} was moved to {where}")
