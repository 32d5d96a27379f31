"""Digests of arrays and of files, which say whether they are still the same."""

import hashlib
from pathlib import Path

import jax
import numpy as np


def leaf_names(tree) -> dict[str, object]:
    """Every leaf under its path: {"params/vae/encoder/Dense_0/bias": ...}."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in flat
    }


def with_leaves(tree, leaves: dict[str, object]):
    """The tree with other leaves, which are found by their paths."""
    structure = jax.tree.structure(tree)
    return jax.tree.unflatten(structure, [leaves[name] for name in leaf_names(tree)])


SUMS = "SHA256SUMS"


def sums(folder: Path) -> str:
    """The digests of all files under a folder, in the format of `sha256sum`."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS)
    lines = []
    for path in files:
        with path.open("rb") as file:
            hexadecimal = hashlib.file_digest(file, "sha256").hexdigest()
        lines.append(f"{hexadecimal}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


def first_change(folder: Path) -> str | None:
    """The first file that is not as it was saved; None if all are, or none can say."""
    if not (folder / SUMS).exists():
        return None  # saved by a version without
    saved = (folder / SUMS).read_text(errors="replace")
    if changed := set(saved.splitlines()) ^ set(sums(folder).splitlines()):
        return min(line.partition("  ")[2] or SUMS for line in changed)
    return None


def digest_of(tree) -> str:
    """Eight hexadecimal digits of all arrays of a tree."""
    leaves = [f"{n} {digest(x)}" for n, x in sorted(leaf_names(tree).items())]
    return hashlib.sha256("\n".join(leaves).encode()).hexdigest()[:8]


def digest(leaf) -> tuple[tuple[int, ...], str, str]:
    """(shape, dtype, SHA-256 of the bytes) of one saved leaf."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
