"""A finished (or unfinished) run, opened by its workdir alone."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from gengen.errors import BadInput
from gengen.images import to_unit

from ..data.dataset import Dataset
from ..data.digest import change
from ..data.load import load
from ..experiments.experiment import Experiment
from . import record as records
from . import references
from .asked import asked
from .checkpoint import Checkpoints
from .devices import make_mesh
from .digests import leaf_names
from .labels import class_names, label_index
from .pictures import sample_grid, to_uint8
from .record import Record
from .report import read_rows
from .sampler import Sampler, given_classes, sample_classes
from .samples import as_data
from .state import InitialState


@dataclasses.dataclass(frozen=True, repr=False)
class OpenRun:
    """A run's record, its model and a checkpoint's arrays.

    `params` are the averaged ones (EMA) if the run keeps an average; `state` holds, as
    "frozen", the arrays of the runs that it refers to. So `run.model.sample(run.params,
    run.state, key, num)` and every task of gengen work on it.
    """

    workdir: Path
    record: Record
    experiment: Experiment
    step: int
    params: Any
    state: Any
    train_state: Any
    load_split: Callable[[str], Dataset] | None = None
    """Loads a split of the data that `fit` was given; None where the record says it."""

    def __repr__(self) -> str:
        data = self.record.data
        size = sum(x.size for x in jax.tree.leaves(self.params))
        classes = f", {data.num_classes} classes" if data.num_classes else ""
        return (
            f"{self.record.experiment} at step {self.step:,} ({self.workdir}): "
            f"{type(self.model).__name__} of {data.name}, {data.examples} "
            f"{list(data.shape)}{classes}; {size:,} parameters"
            f"{', averaged' if self.averaged else ''}"
        )

    @property
    def model(self):
        return self.experiment.model

    def sample(
        self,
        num: int = 64,
        label: int | str | None = None,
        *,
        caption: str | None = None,
        seed: int = 0,
        batch_size: int = 256,
        **options,
    ) -> np.ndarray:
        """Samples as the data are: images uint8 [num, H, W, C] in the set's levels.

        They are what `python -m train.sample --out FILE.npz` writes; sample i depends
        on (seed, i) only.

        Args:
            num: the number of samples.
            label: the class, by its name or its number; by default the classes in turn.
            caption: what they show, of a run on captions.
            seed: the seed of the samples.
            batch_size: samples at a time.
            options: the sampler's, by their names on the command line, such as steps=10
                or guidance_scale=2.
        """
        index = None
        if classes := sample_classes(self.model):
            names = class_names(self.record.data, classes)
            index = None if label is None else label_index(label, names, "label ")
        elif label is not None:
            raise BadInput(f"label {label}: this model is unconditional, leave it out")
        for name, value, least in (
            ("num", num, 1),
            ("batch_size", batch_size, 1),
            ("seed", seed, -(2**63)),
        ):
            if not isinstance(value, int | np.integer) or not least <= value < 2**63:
                raise BadInput(f"{name}={value}: it must be an integer from {least} on")
        sampler = Sampler(self.model, min(num, batch_size), **options)
        given = given_classes(self.model, num, index)
        if caption is not None:
            given |= asked(self, num, label, caption)
        x = sampler(self.params, self.state, jax.random.key(seed), num, given)
        return as_data(x, self.record.data, self.model)

    def data(
        self, split: str = "train", data_dir: str | Path | None = None
    ) -> dict[str, np.ndarray]:
        """All of a split: {"image": uint8 [N, H, W, C], "label": int32 [N]}.

        data_dir: where the files are, of a set that is read with --data-dir.
        """
        dataset = self.dataset(split, data_dir and Path(data_dir))
        return dataset.fetch(np.arange(dataset.size))

    @property
    def curves(self) -> dict[str, np.ndarray]:
        """{metric: [2, N], the steps and the values}: `plt.plot(*run.curves[name])`."""
        rows = read_rows(self.workdir / "metrics.jsonl")
        names = dict.fromkeys(name for row in rows for name in row if name != "step")
        points = {k: [(r["step"], r[k]) for r in rows if k in r] for k in names}
        return {name: np.array(x, np.float64).T for name, x in points.items()}

    def show(self, images: np.ndarray, columns: int = 8):
        """A PIL picture, which notebooks show, of what `sample` and `data` give."""
        self.record.data.images_only("a picture")
        images = np.asarray(images)
        images = images[None] if images.ndim == 3 else images
        x = np.asarray(to_unit(images, self.record.data.levels))
        return sample_grid(to_uint8(x), min(columns, len(x)))

    def dataset(self, split: str, data_dir: Path | None = None) -> Dataset:
        """A split of the run's data set."""
        if self.load_split is not None:
            return self.load_split(split)
        if self.record.experiment == records.FIT:
            raise BadInput(
                f"{self.workdir} was trained by fit, on arrays that are not in it: "
                "call fit again with them, which opens a finished run"
            )
        run = self.record.data_options
        same = {k: run.get(k) for k in ("image_size", "levels", "length")}
        same["on_bad_record"] = run.get("on_bad_record", "refuse")
        same["reader"] = run.get("reader", 1)
        dataset = load(run["dataset"], split=split, data_dir=data_dir, **same)
        if changed := self.changed_since(split, dataset):
            note_once(changed)
        return dataset

    def changed_since(self, split: str, dataset: Dataset) -> str:
        """A sentence if a split is no longer what the run began with; else ""."""
        if split not in (known := self.record.digests):
            return ""
        changed = change(known, {split: dataset.digest()}, dataset.spec.examples)
        where = self.record.data_options["dataset"]
        return f"{changed} that the run began with, in {where}" if changed else ""

    def dataset_if_any(self, split: str, data_dir: Path | None = None):
        """A split of the run's data set, or None where it has no such split."""
        try:
            return self.dataset(split, data_dir)
        except BadInput as error:
            if getattr(error, "no_such_split", False):
                return None
            raise

    @property
    def averaged(self) -> bool:
        """Whether `params` are averaged."""
        return self.train_state.ema is not None


@functools.cache
def note_once(sentence: str) -> None:
    """Print a note, the first time that it is said."""
    print(f"note: {sentence}", file=sys.stderr)


def refuse_nonfinite(params, run: str) -> None:
    """BadInput that names the first parameter that is not finite.

    A model that draws symbols would turn NaN into one: its samples look like samples.
    """
    for name, x in sorted(leaf_names(params).items()):
        x = np.asarray(x)
        if jax.numpy.issubdtype(x.dtype, np.inexact) and not np.isfinite(x).all():
            raise BadInput(
                f"{run}: parameter {name} is not finite (NaN or infinity), so nothing "
                "that is drawn would be; name an earlier --step, or train again"
            )


def open_workdir(
    workdir: Path,
    step: int | Literal["best"] | None = None,
    inside: tuple[Path, ...] = (),
) -> OpenRun:
    """The run in a workdir; BadInput if there is none or it cannot be read.

    Args:
        workdir: the run's folder.
        step: the step of the checkpoint, or "best", of a run with --keep-best; None for
            the last one that can be read.
        inside: the folders of the runs that refer to this one.
    """
    record = records.load(workdir)
    record, opened = references.load(record, Path(workdir), open_workdir, inside)
    models = {name: run.model for name, run in opened.items()}
    experiment = record.build(**models)
    checkpoints = Checkpoints(workdir)
    checkpoints.some_step()
    seed = record.data_options["seed"]
    batch = record.data.example(experiment.batch_size)
    like = InitialState(experiment, seed, batch, make_mesh()).abstract
    train_state, notes = checkpoints.restore(like, step)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    params = train_state.params if train_state.ema is None else train_state.ema
    refuse_nonfinite(params, f"{workdir}, step {int(train_state.step)}")
    frozen = {name: references.variables_of(x) for name, x in opened.items()}
    return OpenRun(
        Path(workdir),
        record,
        experiment,
        int(train_state.step),
        params,
        {**train_state.state, "frozen": frozen},
        train_state,
    )
