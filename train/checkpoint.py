"""Checkpoints of the whole train state: orbax, committed atomically."""

import hashlib
from pathlib import Path

import jax
import numpy as np

from gengen.types import BadInput


def leaf_names(tree) -> dict[str, object]:
    """Every leaf under its path: {"params/vae/encoder/Dense_0/bias": ...}."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in flat
    }


class Checkpoints:
    """The checkpoints of one workdir, in `workdir/checkpoints/STEP`.

    keep: how many are kept; None to read only.
    """

    def __init__(self, workdir: Path, keep: int | None = None):
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self.folder = (Path(workdir) / "checkpoints").absolute()
        # Synchronous: the train state is donated to the next step.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            create=keep is not None,
        )
        handler = ocp.StandardCheckpointHandler()
        self._manager = ocp.CheckpointManager(
            self.folder, options=options, item_handlers=handler
        )

    def latest(self) -> int | None:
        """The last step saved, None if there is none."""
        return self._manager.latest_step()

    def save(self, train_state) -> None:
        """Save under the state's own step, unless that step is saved already."""
        step = int(train_state.step)
        if step != self.latest():
            self._manager.save(
                step, args=self._ocp.args.StandardSave(_as_dict(train_state))
            )

    def restore(self, like):
        """The last train state, on the shapes and shardings of `like`; BadInput if
        it cannot be read or belongs to another model."""
        step, template = self.latest(), _as_dict(like)
        there = self._metadata(step)
        wanted = {name: tuple(x.shape) for name, x in leaf_names(template).items()}
        for name in sorted(there.keys() | wanted.keys()):
            if there.get(name) != wanted.get(name):
                raise BadInput(
                    f"checkpoint {self.folder / str(step)} is of another model: it has "
                    f"{name} {there.get(name, 'nowhere')}, this one "
                    f"{wanted.get(name, 'nowhere')}; take another --workdir"
                )
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            template,
        )
        return like.replace(**self._read(step, abstract))

    def some_step(self) -> int:
        """The last step saved; BadInput if there is none."""
        if (step := self.latest()) is None:
            raise BadInput(f"{self.folder} holds no checkpoint yet: train first")
        return step

    def raw(self) -> tuple[int, dict]:
        """(step, the saved tree) of the last checkpoint, whatever saved it."""
        step = self.some_step()
        return step, self._read(step, None)

    def _metadata(self, step: int) -> dict[str, tuple[int, ...]]:
        try:
            tree = self._manager.item_metadata(step).tree
            shapes = {n: tuple(leaf.shape) for n, leaf in leaf_names(tree).items()}
            # A typed key is saved as its two words.
            return {n: () if n == "key" else shape for n, shape in shapes.items()}
        except Exception as error:
            raise self._unreadable(step, error) from error

    def _read(self, step: int, abstract):
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        args = self._ocp.args.StandardRestore(abstract, fallback_sharding=here)
        try:
            return self._manager.restore(step, args=args)
        except Exception as error:
            raise self._unreadable(step, error) from error

    def _unreadable(self, step: int, error: Exception) -> BadInput:
        where = self.folder / str(step)
        reason = str(error).strip().splitlines()[0][:120] if str(error) else ""
        others = sorted(s for s in self._manager.all_steps() if s != step)
        remedy = (
            f"move that folder away to go on from step {others[-1]}"
            if others
            else "restore that folder from a copy, or take another --workdir"
        )
        return BadInput(
            f"checkpoint {where} is damaged or not gengen's "
            f"({type(error).__name__}: {reason}); {remedy}"
        )


def _as_dict(train_state) -> dict:
    fields = ("step", "key", "params", "state", "opt_state", "ema")
    return {name: getattr(train_state, name) for name in fields}


def digest(leaf) -> tuple[tuple[int, ...], str, str]:
    """(shape, dtype, SHA-256 of the bytes) of one saved leaf."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
