"""What every source of data answers with.

Every reader answers with a `Dataset`: what a model must know (`Spec`), how many
examples there are, and `fetch`, which reads any of them by index. What a user can get
wrong is found here, before any training, and told as a `BadInput`. The heavy imports
stand inside the functions that need them, so that asking for one source does not load
the libraries of the others.
"""

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from gengen.errors import BadInput

from .captions import KEY as TOKENS
from .captions import Captions
from .digest import WHOLE, of_fetch

BUILT_IN = ("digits", "shapes", "scenes", "mnist", "fashion_mnist", "emoji")
BUILT_IN += ("folder:PATH", "text:PATH", "npz:FILE")
BUILT_IN += ("gaussians:ring", "gaussians:grid")

READER = 3
"""The rules by which folders and text are read; a run keeps those that it began with.

1: Every tenth image of a class is for testing. Windows of text begin at any byte.
2: A hash of an image's path says where it belongs. Windows begin at whole characters.
3: Captions are read where there are any.
"""

Kind = Literal["images", "text", "symbols", "reals"]
KEYS = {"images": "image", "text": "tokens", "symbols": "codes", "reals": "latent"}
"""What a batch calls the examples of each kind."""
_NOUNS = {"images": "images", "text": "windows", "symbols": "grids", "reals": "latents"}


@dataclasses.dataclass(frozen=True)
class Spec:
    """All a model needs to know of a data set.

    `shape` is (H, W, C) of images, (L,) of text; pixels, bytes and symbols are integers
    0..levels-1; `num_classes` is 0 for an unlabelled set. `name` is the name as the
    user gave it. Real numbers have levels 0, and a mean and a standard deviation per
    channel.
    """

    name: str
    shape: tuple[int, ...]
    levels: int
    num_classes: int
    class_names: tuple[str, ...]
    kind: Kind = "images"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    grey: int = 0
    "Levels from which a training step draws its binary pixels; 0 where it reads them."
    partner: bool = False
    "Whether a batch also has images of a second domain, of the same shape."
    labelled: int = 0
    "Training examples of each class whose label is known; 0 for all."
    factors: tuple[str, ...] = ()
    "What an example was made of, of drawn data; () where nobody knows it."
    words: tuple[str, ...] = ()
    "The words of training captions, in the order of their tokens; () without captions."
    caption_length: int = 0
    "The most words of a caption; 0 without captions."

    @property
    def examples(self) -> str:
        """What the examples are called."""
        return _NOUNS[self.kind]

    @property
    def dtype(self) -> type:
        """The type of the numbers in a batch."""
        wide = np.int32 if self.kind == "symbols" or self.levels > 256 else np.uint8
        return np.float32 if self.kind == "reals" else wide

    def two_domains(self, who: str) -> None:
        """Refuse a data set of one domain where two are mapped to one another."""
        if not self.partner:
            raise BadInput(
                f"{who} maps one domain to another, and {self.name} is one: take "
                "--dataset pair:thick:digits, or unpaired:A,B of two data sets"
            )

    def images_only(self, who: str) -> None:
        """Refuse what is no image where only images make sense."""
        if self.kind != "images":
            raise BadInput(
                f"{who} works on images, and {self.name} is "
                f"{self.kind.replace('reals', 'real numbers')}: take a run or a data "
                "set of images"
            )

    def space(self):
        """What is generated: images, text, symbols or real numbers."""
        from gengen.spaces import Images, Reals, Symbols, tokens

        if self.kind == "text":
            return tokens(self.shape[0], self.levels)
        if self.kind == "symbols":
            return Symbols(self.shape, self.levels)
        if self.kind == "reals":
            return Reals(self.shape, self.mean, self.std)
        return Images(self.shape, self.levels)

    def labels(self):
        """The type of the classes; BadInput for a data set without labels."""
        from gengen.conditions import Labels

        if not self.num_classes:
            raise BadInput(
                f"{self.name} has no labels, which this needs: take a labelled data set"
            )
        return Labels(self.num_classes)

    def condition(self, conditional: bool = True):
        """What a model of this data set depends on: the class, where there are any."""
        from gengen.conditions import Nothing

        if conditional and self.labelled:
            raise BadInput(
                f"{self.name} hides most labels, and a model of p(x|y) learns from "
                "all: take the experiment m2, or an unconditional model"
            )
        return self.labels() if conditional and self.num_classes else Nothing()

    @property
    def captions(self) -> Captions | None:
        """The captions' vocabulary; None for a set without captions."""
        return Captions(self.words, self.caption_length) if self.words else None

    def text(self, **encoder):
        """The type of the captions' tokens; encoder: the fields of a `Text`.

        BadInput for a data set without captions.
        """
        from gengen.conditions import Text

        if not self.words:
            raise BadInput(
                f"{self.name} has no captions, which this needs: put name.txt beside "
                "each name.png of a folder, or take --dataset scenes"
            )
        return Text(len(self.words) + 1, self.caption_length, key=TOKENS, **encoder)

    def as_json(self) -> dict:
        """The fields as JSON's own types: what `from_json` reads."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, fields: dict) -> "Spec":
        """The Spec whose `as_json` is `fields`."""
        lists = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
        return cls(**{**fields, **lists})

    def is_possible(self) -> bool:
        """Whether the numbers fit one another: a record may have been damaged."""
        sides = {"images": 3, "text": 1}.get(self.kind, max(1, len(self.shape)))
        if len(self.shape) != sides or min(*self.shape, self.num_classes + 1) < 1:
            return False
        if bool(self.words) != (self.caption_length > 0):
            return False
        if self.kind == "reals":
            return len(self.mean) == len(self.std) == self.shape[-1]
        grey = self.grey == 0 or self.levels == 2 <= self.grey
        return self.levels >= 2 and grey and not self.mean and not self.std

    def example(self, num: int) -> dict[str, np.ndarray]:
        """A batch of `num` examples of zeros (and labels 0, no words), for shapes."""
        batch = {KEYS[self.kind]: np.zeros((num, *self.shape), self.dtype)}
        if self.partner:
            batch["partner"] = np.zeros((num, *self.shape), self.dtype)
        if self.num_classes:
            batch["label"] = np.zeros(num, np.int32)
        if self.words:
            batch[TOKENS] = np.zeros((num, self.caption_length), np.int32)
        return batch


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a data set, readable at any index.

    `fetch(indices [B])` gives {"image": uint8 [B, H, W, C], "label": int32 [B]},
    without "label" where `spec.num_classes` is 0, with the tokens "text" [B, S] of
    captions where there are any, of another kind its array in `KEYS` (of text
    {"tokens": uint8 [B, L]}), and can be pickled. A label of -1 is unknown: no
    training example has it unless `spec.labelled`, and no figure that needs a label is
    made of such examples.
    `note` is one line to print. `left_out` names the records that no index reaches:
    they are bad. `contents` makes the digest of what is read; None makes it of the
    examples.
    """

    spec: Spec
    size: int
    fetch: Callable[[np.ndarray], dict[str, np.ndarray]]
    note: str
    left_out: tuple[str, ...] = ()
    contents: Callable[[], dict[str, str]] | None = None
    feed: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None
    "What a training step reads, where it is not what `fetch` gives."
    factors: Callable[[np.ndarray], np.ndarray] | None = None
    "int32 [B, F] of indices [B]: the known `spec.factors`, where they are known."

    def digest(self) -> dict[str, str]:
        """{what: SHA-256} of what the split holds, the same wherever the files lie."""
        if self.contents is not None:
            return self.contents()
        step = max(1, self.bytes // WHOLE)  # of a larger set, some examples
        return of_fetch(self.fetch, np.arange(0, self.size, step))

    @property
    def bytes(self) -> int:
        """The size of all pixels."""
        each = np.dtype(self.spec.dtype).itemsize
        return self.size * each * math.prod(self.spec.shape)


def bad_record(name: str, error: Exception) -> Exception:
    """A BadInput whose `record` is `name`: one file or record that cannot be read.

    Its `reason` is the error's own words.
    """
    problem = BadInput(
        f"{name} cannot be read as an image ({error}): repair, convert or remove it, "
        "or train with --on-bad-record skip"
    )
    problem.record, problem.reason = name, str(error)
    return problem


def bad_records(errors: list[Exception]) -> Exception:
    """One BadInput of several, each of `bad_record`; it names the first three."""
    first = errors[0]
    if len(errors) == 1:
        return first
    some = "; ".join(f"{error.record} ({error.reason})" for error in errors[:3])
    more = f"; and {len(errors) - 3:,} more" if len(errors) > 3 else ""
    problem = BadInput(
        f"{len(errors):,} files cannot be read as images: {some}{more}: repair, "
        "convert or remove them, or train with --on-bad-record skip"
    )
    problem.record, problem.reason = first.record, first.reason
    return problem


def named(left_out: Sequence[str], why: str = "left out as unreadable") -> str:
    """How many records were left out, and the first of them."""
    some, more = left_out[:3], len(left_out) - 3
    also = f" and {more:,} more" if more > 0 else ""
    return f"{len(left_out):,} {why}: {', '.join(some)}{also}"


def check_split(name: str, split: str, splits: Iterable[str]) -> None:
    """Refuse a split that is not one of `splits`."""
    if split not in splits:
        there_are = ", ".join(splits)
        error = BadInput(f"{name} has no split {split!r}: choose one of {there_are}")
        error.no_such_split = True
        raise error


def take(arrays: dict[str, np.ndarray], indices: np.ndarray) -> dict:
    """The `fetch` of a set in memory."""
    return {key: array[indices] for key, array in arrays.items()}


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, but for hidden ones and linked folders'."""
    found = []
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(where, name) for name in files if name[0] != "."]
    return sorted(path for path in found if path.is_file())


def unknown(name: str, others: Iterable[str]) -> Exception:
    """The BadInput for a name that no source knows, with the nearest one that is."""
    plain = name.lower().replace("-", "_")
    near = difflib.get_close_matches(plain, [*BUILT_IN, *others], 1)
    if name and Path(name).is_dir():
        near = [f"folder:{name}"]
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return BadInput(
        f"no data set is called {name!r}{hint}: take one of "
        f"{', '.join(BUILT_IN)}, or any prepared TFDS name"
    )
