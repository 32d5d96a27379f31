"""The pickles of PyTorch's files, read by a stack machine that runs nothing.

A pickle is a program that may call any function by name. The machine knows the opcodes
that a dict of tensors needs and refuses the rest: no name in the file is ever imported
or called.
"""

import dataclasses
import io
import pickletools

from .tensors import count, damaged, is_natural, refused

STORAGES = {
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

LEGACY = 0x1950A86A20F9469CFC6C  # the first pickle of torch.save before 1.6

_OPCODES = 2_000_000  # far above what any network needs, far below what hurts


@dataclasses.dataclass(frozen=True)
class _Global:
    """A name in the pickle, which stays a name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers of one type, by their key in the file."""

    key: str
    code: str
    length: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_LITERALS |= {"SHORT_BINUNICODE", "BINUNICODE"}


def unpickle(stream: io.BytesIO, storages: dict[str, Storage]):
    """The value of the next pickle, made of literals, _Globals and _Tensors.

    Storages that it names are added to `storages`.
    """
    stack, marks, memo = [], [], {}

    def since_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for number, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        if number == _OPCODES:
            raise refused(f"has a pickle of over {_OPCODES} opcodes")
        match opcode.name:
            case "STOP":
                return stack.pop()
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case name if name in _CONSTANTS or name in _LITERALS:
                stack.append(_CONSTANTS.get(name, arg))
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
                raise refused(f"uses the pickle opcode {name}, which no tensor needs")


def _pop(stack: list, size: int) -> list:
    items = stack[-size:]
    del stack[-size:]
    return items


def _update(target: dict, items: list) -> None:
    """Items are key, value, key, ...; keys are strings, for others may hash slowly."""
    if not all(type(key) is str for key in items[::2]):
        raise refused("holds a dict whose keys are not all strings")
    target.update(zip(items[::2], items[1::2], strict=True))


def _global(name: str) -> _Global:
    if name not in {*STORAGES, _DICT, _TENSOR, _PARAMETER}:
        dotted = name.replace(" ", ".")[:80]
        raise refused(f"asks for {dotted!r}, which no dict of tensors needs")
    return _Global(name)


def _storage(reference, storages: dict[str, Storage]) -> Storage:
    match reference:
        case ("storage", _Global(kind), str(key), str(), length, *view) if (
            kind in STORAGES and is_natural(length) and view in ([], [None])
        ):
            storage = Storage(key, STORAGES[kind], length)
            if storages.setdefault(key, storage) == storage:
                return storage
    raise refused("holds a persistent reference that is not a plain storage")


def _reduce(function: _Global, args: tuple):
    match function.name, args:
        case (name, ()) if name == _DICT:
            return {}
        case (name, (Tensor() as tensor, *_)) if name == _PARAMETER:
            return tensor
        case (name, (Storage() as storage, int(offset), shape, strides, *_)) if (
            name == _TENSOR
        ):
            size, _ = count(shape), count((offset, *strides))
            reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            if size and offset + reach >= storage.length:
                raise damaged("holds a tensor that its storage is too short for")
            if size > storage.length:  # a stride of 0 makes any size of one number
                raise refused("holds a tensor that repeats numbers of its storage")
            return Tensor(storage, offset, tuple(shape), tuple(strides))
    raise refused(f"calls {function.name.replace(' ', '.')} in an unknown way")
