"""Files of safetensors, read where they lie and written piece by piece.

What passes through takes no memory of its own: arrays that are read are views of the
file, and those that are written go into it one by one.
"""

import json
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from gengen.errors import BadInput

from .processes import first_line

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U32": np.uint32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
CODES = {np.dtype(kind): code for code, kind in TYPES.items()}
_MALFORMED = (SafetensorError, OSError, LookupError, ValueError, TypeError)


def mapped(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a file, views of it; BadInput for one that is damaged."""
    try:
        with safe_open(path, "numpy") as tensors:
            tensors.keys()  # says that nothing is missing, nor overlaps
        raw = np.memmap(path, np.uint8, "r")
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8:start].tobytes())
        header.pop("__metadata__", None)
        arrays = {}
        for name, said in header.items():
            first, last = (start + offset for offset in said["data_offsets"])
            flat = raw[first:last].view(TYPES[said["dtype"]])
            arrays[name] = flat.reshape(said["shape"])
        return arrays
    except _MALFORMED as error:
        raise BadInput(
            f"{path} is no whole file of safetensors ({first_line(error)}): fetch it "
            "again"
        ) from error


def write(file: IO[bytes], arrays: dict[str, np.ndarray], notes: dict[str, str]):
    """Write the file; wide types come first, so that every array is aligned in it."""
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header, end = {"__metadata__": notes}, 0
    for name in order:
        x = arrays[name]
        offsets = [end, end := end + x.nbytes]
        header[name] = {"dtype": CODES[x.dtype], "shape": x.shape}
        header[name]["data_offsets"] = offsets
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))
