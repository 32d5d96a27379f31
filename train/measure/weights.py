"""Tensors from weight files of others: safetensors and PyTorch, nothing executed.

A PyTorch file is a pickle, a program that may call any function by name. Here its
opcodes are read by a small stack machine that knows what a dict of tensors needs
and refuses the rest: no name in the file is ever imported or called. Numbers are
checked before bytes are taken for them, so that a hostile or damaged file costs one
sentence, and time and memory in proportion to its size.

The formats: huggingface/safetensors, "Format"; torch/serialization.py, `torch.save`,
whose zip (since 1.6) holds PREFIX/data.pkl and PREFIX/data/KEY for each storage, and
whose older form is five pickles in a row, then the storages.
"""

import io
import json
import math
import struct
import zipfile
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

from .pickles import LEGACY, Tensor, unpickle
from .tensors import TYPES, Unreadable, count, damaged, native, refused

_ENTRIES, _COPIES = 200_000, 4  # far above what any network needs

# What the standard library's parsers and a stack machine raise on damaged input.
_MALFORMED = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile),
)


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Name -> array of the tensors in a .safetensors, .pth or .pt file.

    The arrays are contiguous copies in the file's own type, bfloat16 as float32. A
    PyTorch file must hold a state dict, a dict of tensors and nothing else. Raises
    BadInput, which names the file and the remedy, on anything else; never executes
    what the file says.
    """
    path = Path(path).expanduser()
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise BadInput(
            f"{path} is no file of weights by its name: name one that ends in "
            f"{', '.join(_READERS)}"
        )
    try:
        if not path.is_file():
            raise Unreadable("is not a file: name the file of weights")
        return reader(path.read_bytes())
    except Unreadable as error:
        raise BadInput(f"{path} {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error}): fetch it again") from error
    except _MALFORMED as error:
        what = damaged(f"is malformed ({type(error).__name__})")
        raise BadInput(f"{path} {what}") from error


# ---------------------------------------------------------------- safetensors


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Eight bytes n, n bytes of JSON, then the tensors without holes or overlaps."""
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise damaged("is shorter than its header")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays, end = {}, start
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        code, shape = header[name]["dtype"], header[name]["shape"]
        if code not in TYPES:
            raise refused(f"holds {name[:80]!r} of the type {str(code)[:20]!r}")
        size = count(shape) * np.dtype(TYPES[code]).itemsize
        placed = [end - start, end - start + size]
        if header[name]["data_offsets"] != placed or end + size > len(data):
            raise damaged(f"places {name[:80]!r} where its bytes cannot be")
        raw = np.frombuffer(data[end : end + size], TYPES[code])
        arrays[name] = native(raw.reshape(shape), code)
        end += size
    if end != len(data):
        raise damaged(f"holds {len(data)} bytes where its header promises {end}")
    return {name: arrays[name] for name in header}


# ---------------------------------------------------------------- PyTorch's files


def _torch(data: bytes) -> dict[str, np.ndarray]:
    """A state dict, from the bytes that hold it: zip or legacy."""
    state, raw = (_from_zip if data[:4] == b"PK\3\4" else _from_legacy)(data)
    if type(state) is not dict:
        raise refused("does not hold a dict of tensors")
    room, arrays = _COPIES * len(data), {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise refused(f"holds {name[:80]!r}, which is not a tensor")
        dtype = np.dtype(TYPES[tensor.storage.code])
        numbers = raw[tensor.storage.key]
        if len(numbers) != tensor.storage.length * dtype.itemsize:
            raise damaged(f"is short of the numbers of {name[:80]!r}")
        room -= math.prod(tensor.shape) * dtype.itemsize
        if room < 0:
            raise refused(f"claims over {_COPIES} times the numbers that it holds")
        if math.prod(tensor.shape):
            part = np.frombuffer(numbers, dtype)[tensor.offset :]
            strides = [stride * dtype.itemsize for stride in tensor.strides]
            view = np.lib.stride_tricks.as_strided(part, tensor.shape, strides)
        else:
            view = np.zeros(tensor.shape, dtype)
        arrays[name] = native(view, tensor.storage.code)
    return arrays


def _from_zip(data: bytes):
    """(value of data.pkl, key -> bytes) of the zip that torch.save writes since 1.6."""
    if data.count(b"PK\1\2") > _ENTRIES:  # before zipfile makes an object of each
        raise refused(f"is an archive of over {_ENTRIES} entries")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise refused(f"has the compressed or encrypted entry {name[:80]!r}")
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise damaged("is an archive that claims more bytes than it has")
        roots = [name[:-8] for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise refused(f"is a zip with {len(roots)} entries data.pkl, not one")
        order = f"{roots[0]}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise refused("is not little-endian")
        storages = {}
        pickle = archive.read(f"{roots[0]}data.pkl")
        state = unpickle(io.BytesIO(pickle), storages)
        return state, {key: archive.read(f"{roots[0]}data/{key}") for key in storages}


def _from_legacy(data: bytes):
    """(value, key -> bytes) of the pickles magic number, protocol, system, value and
    keys, after which each storage is its length in eight bytes and its numbers."""
    stream, storages = io.BytesIO(data), {}
    if data[:1] != b"\x80" or unpickle(stream, storages) != LEGACY:
        raise refused("is not a file of torch.save")
    _, system, state, keys = (unpickle(stream, storages) for _ in range(4))
    if system["little_endian"] is not True:
        raise refused("is not little-endian")
    raw = {}
    for key in keys:
        if type(key) is not str:
            raise damaged("names its storages by other than strings")
        length = int.from_bytes(stream.read(8), "little")
        if length != storages[key].length:
            raise damaged(f"holds {length} numbers in storage {key[:20]!r}, not all")
        raw[key] = stream.read(length * np.dtype(TYPES[storages[key].code]).itemsize)
    return state, raw


_READERS = {".safetensors": _safetensors, ".pth": _torch, ".pt": _torch}
