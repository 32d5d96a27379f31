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

import dataclasses
import io
import json
import math
import pickletools
import struct
import zipfile
from pathlib import Path

import numpy as np

from gengen.errors import BadInput

# safetensors' name of a type -> the numbers as stored, little-endian.
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|u1"}
_TYPES |= {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1"}

_STORAGES = {
    "torch DoubleStorage": "F64",
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
    "torch ShortStorage": "I16",
    "torch CharStorage": "I8",
    "torch ByteStorage": "U8",
    "torch BoolStorage": "BOOL",
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"

_LEGACY = 0x1950A86A20F9469CFC6C  # the first pickle of torch.save before 1.6

# Far above what any network needs, far below what hurts.
_NUMBER, _RANK = 2**48, 32
_OPCODES, _ENTRIES, _COPIES = 2_000_000, 200_000, 4


# What the standard library's parsers and a stack machine raise on damaged input.
_MALFORMED = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError),
    *(MemoryError, RuntimeError, TypeError, ValueError),
    *(struct.error, zipfile.BadZipFile),
)


class _Unreadable(Exception):
    """What is wrong with the file and the remedy, after its name."""


def _damaged(what: str) -> _Unreadable:
    return _Unreadable(f"{what}: it is truncated or damaged, fetch the file again")


def _refused(what: str) -> _Unreadable:
    return _Unreadable(
        f"{what}: where the file can be trusted, load it with PyTorch and save its "
        "state_dict() as .safetensors"
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
            raise _Unreadable("is not a file: name the file of weights")
        return reader(path.read_bytes())
    except _Unreadable as error:
        raise BadInput(f"{path} {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error}): fetch it again") from error
    except _MALFORMED as error:
        what = _damaged(f"is malformed ({type(error).__name__})")
        raise BadInput(f"{path} {what}") from error


# ---------------------------------------------------------------- safetensors


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
    """Eight bytes n, n bytes of JSON, then the tensors without holes or overlaps."""
    start = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or start > len(data):
        raise _damaged("is shorter than its header")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    arrays, end = {}, start
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        code, shape = header[name]["dtype"], header[name]["shape"]
        if code not in _TYPES:
            raise _refused(f"holds {name[:80]!r} of the type {str(code)[:20]!r}")
        size = _count(shape) * np.dtype(_TYPES[code]).itemsize
        placed = [end - start, end - start + size]
        if header[name]["data_offsets"] != placed or end + size > len(data):
            raise _damaged(f"places {name[:80]!r} where its bytes cannot be")
        raw = np.frombuffer(data[end : end + size], _TYPES[code])
        arrays[name] = _native(raw.reshape(shape), code)
        end += size
    if end != len(data):
        raise _damaged(f"holds {len(data)} bytes where its header promises {end}")
    return {name: arrays[name] for name in header}


def _count(shape: list | tuple) -> int:
    """The product of the sizes, once they are known to be sizes."""
    if len(shape) > _RANK or not all(map(_natural, shape)):
        raise _damaged("holds a tensor of impossible shape")
    return math.prod(shape)


def _natural(number) -> bool:
    return type(number) is int and 0 <= number < _NUMBER


def _native(array: np.ndarray, code: str) -> np.ndarray:
    """A contiguous copy; bfloat16, the upper half of a float32, becomes one."""
    array = np.array(array, order="C")
    if code == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array != 0 if code == "BOOL" else array


# ---------------------------------------------------------------- the stack machine


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name in the pickle, which stays a name."""

    name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    code: str
    length: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_LITERALS |= {"SHORT_BINUNICODE", "BINUNICODE"}


def _unpickle(stream: io.BytesIO, storages: dict[str, _Storage]):
    """The value of the next pickle, made of literals, _Globals and _Tensors.

    Storages that it names are added to `storages`.
    """
    stack, marks, memo = [], [], {}

    def since_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        if count == _OPCODES:
            raise _refused(f"has a pickle of over {_OPCODES} opcodes")
        match opcode.name:
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _LITERALS:
                stack.append(arg)
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                size = int(name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND" | "APPENDS" as name:
                items = [stack.pop()] if name == "APPEND" else since_mark()
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS" as name:
                items = since_mark() if name == "SETITEMS" else _pop(stack, 2)
                _update(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_global(arg))
            case "STACK_GLOBAL":
                stack.append(_global(" ".join(_pop(stack, 2))))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), storages))
            case "REDUCE":
                stack.append(_reduce(*_pop(stack, 2)))
            case "BUILD" if type(stack[-2]) is dict:
                stack.pop()  # the attribute _metadata of a state dict
            case name:
                raise _refused(f"uses the pickle opcode {name}, which no tensor needs")


def _pop(stack: list, size: int) -> list:
    items = stack[-size:]
    del stack[-size:]
    return items


def _update(target: dict, items: list) -> None:
    """Items are key, value, key, ...; keys are strings, for others may hash slowly."""
    if not all(type(key) is str for key in items[::2]):
        raise _refused("holds a dict whose keys are not all strings")
    target.update(zip(items[::2], items[1::2], strict=True))


def _global(name: str) -> _Global:
    if name not in {*_STORAGES, _DICT, _TENSOR, _PARAMETER}:
        dotted = name.replace(" ", ".")[:80]
        raise _refused(f"asks for {dotted!r}, which no dict of tensors needs")
    return _Global(name)


def _storage(reference, storages: dict[str, _Storage]) -> _Storage:
    match reference:
        case ("storage", _Global(kind), str(key), str(), length, *view) if (
            kind in _STORAGES and _natural(length) and view in ([], [None])
        ):
            storage = _Storage(key, _STORAGES[kind], length)
            if storages.setdefault(key, storage) == storage:
                return storage
    raise _refused("holds a persistent reference that is not a plain storage")


def _reduce(function: _Global, args: tuple):
    match function.name, args:
        case (name, ()) if name == _DICT:
            return {}
        case (name, (_Tensor() as tensor, *_)) if name == _PARAMETER:
            return tensor
        case (name, (_Storage() as storage, int(offset), shape, strides, *_)) if (
            name == _TENSOR
        ):
            size, _ = _count(shape), _count((offset, *strides))
            reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            if size and offset + reach >= storage.length:
                raise _damaged("holds a tensor that its storage is too short for")
            if size > storage.length:  # a stride of 0 makes any size of one number
                raise _refused("holds a tensor that repeats numbers of its storage")
            return _Tensor(storage, offset, tuple(shape), tuple(strides))
    raise _refused(f"calls {function.name.replace(' ', '.')} in an unknown way")


# ---------------------------------------------------------------- PyTorch's files


def _torch(data: bytes) -> dict[str, np.ndarray]:
    """A state dict, from the bytes that hold it: zip or legacy."""
    state, raw = (_from_zip if data[:4] == b"PK\3\4" else _from_legacy)(data)
    if type(state) is not dict:
        raise _refused("does not hold a dict of tensors")
    room, arrays = _COPIES * len(data), {}
    for name, tensor in state.items():
        if not isinstance(tensor, _Tensor):
            raise _refused(f"holds {name[:80]!r}, which is not a tensor")
        dtype = np.dtype(_TYPES[tensor.storage.code])
        numbers = raw[tensor.storage.key]
        if len(numbers) != tensor.storage.length * dtype.itemsize:
            raise _damaged(f"is short of the numbers of {name[:80]!r}")
        room -= math.prod(tensor.shape) * dtype.itemsize
        if room < 0:
            raise _refused(f"claims over {_COPIES} times the numbers that it holds")
        if math.prod(tensor.shape):
            part = np.frombuffer(numbers, dtype)[tensor.offset :]
            strides = [stride * dtype.itemsize for stride in tensor.strides]
            view = np.lib.stride_tricks.as_strided(part, tensor.shape, strides)
        else:
            view = np.zeros(tensor.shape, dtype)
        arrays[name] = _native(view, tensor.storage.code)
    return arrays


def _from_zip(data: bytes):
    """(value of data.pkl, key -> bytes) of the zip that torch.save writes since 1.6."""
    if data.count(b"PK\1\2") > _ENTRIES:  # before zipfile makes an object of each
        raise _refused(f"is an archive of over {_ENTRIES} entries")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise _refused(f"has the compressed or encrypted entry {name[:80]!r}")
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise _damaged("is an archive that claims more bytes than it has")
        roots = [name[:-8] for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _refused(f"is a zip with {len(roots)} entries data.pkl, not one")
        order = f"{roots[0]}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise _refused("is not little-endian")
        storages = {}
        pickle = archive.read(f"{roots[0]}data.pkl")
        state = _unpickle(io.BytesIO(pickle), storages)
        return state, {key: archive.read(f"{roots[0]}data/{key}") for key in storages}


def _from_legacy(data: bytes):
    """(value, key -> bytes) of the pickles magic number, protocol, system, value and
    keys, after which each storage is its length in eight bytes and its numbers."""
    stream, storages = io.BytesIO(data), {}
    if data[:1] != b"\x80" or _unpickle(stream, storages) != _LEGACY:
        raise _refused("is not a file of torch.save")
    _, system, state, keys = (_unpickle(stream, storages) for _ in range(4))
    if system["little_endian"] is not True:
        raise _refused("is not little-endian")
    raw = {}
    for key in keys:
        if type(key) is not str:
            raise _damaged("names its storages by other than strings")
        length = int.from_bytes(stream.read(8), "little")
        if length != storages[key].length:
            raise _damaged(f"holds {length} numbers in storage {key[:20]!r}, not all")
        raw[key] = stream.read(length * np.dtype(_TYPES[storages[key].code]).itemsize)
    return state, raw


_READERS = {".safetensors": _safetensors, ".pth": _torch, ".pt": _torch}
