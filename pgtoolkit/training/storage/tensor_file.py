"""Named tensors and text in one safetensors file, with a checksum of every byte.

The format is that of https://github.com/huggingface/safetensors: 8 bytes with the header's length
(little-endian), the header as JSON, and the tensors' bytes. The header begins with the checksum,
which is the SHA-256 of the whole file with zeros in the checksum's place.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from io import FileIO
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

MAX_HEADER_BYTES = 64 * 1024 * 1024
"""The header holds what is not a tensor, some kB. It is read in two seconds at this size."""

CHUNK_BYTES = 1024 * 1024

MAX_AXES = 64
"""NumPy's limit."""

CHECKSUM_START = b'{"__metadata__":{"checksum":"'
"""The beginning of a header with a checksum, which follows in 64 hexadecimal digits."""

NO_CHECKSUM = "0" * 64

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""The format's name of a dtype to the dtype."""

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class DamagedError(Exception):
    """Why a file is not what was written, in words."""


@final
class Place(NamedTuple):
    """Where a tensor's bytes are."""

    dtype: torch.dtype
    shape: list[int]
    begin: int
    """The first byte after the header."""
    end: int


@final
class Header(NamedTuple):
    """What a file says about itself."""

    size: int
    """Bytes before the tensors."""
    metadata: dict[str, str]
    places: dict[str, Place]


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The parts of the file, in order. The tensors' bytes are not copied if they are on the CPU.

    Raises:
        ValueError: the header would be too long to be read again.
    """
    # Wide numbers first, so that each tensor begins at a multiple of its own width.
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    views = {name: _bytes_of(tensors[name]) for name in names}
    header: dict[str, Any] = {"__metadata__": {"checksum": NO_CHECKSUM, **metadata}}
    end = 0
    for name in names:
        begin, end = end, end + views[name].nbytes
        dtype, shape = DTYPE_NAMES[tensors[name].dtype], list(tensors[name].shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise ValueError(f"what is not a tensor takes {len(text):,} bytes: keep it in tensors")
    length, content = len(text).to_bytes(8, "little"), list(views.values())
    digest = hashlib.sha256(length + text)
    for view in content:
        digest.update(view)
    start = len(CHECKSUM_START)
    signed = text[:start] + digest.hexdigest().encode() + text[start + len(NO_CHECKSUM) :]
    return [length, signed, *content]


def verify(file: FileIO) -> bool:
    """Compares a file with its checksum; False if it has none.

    Raises:
        DamagedError: it is not the file that was written.
        OSError: the file cannot be read.
    """
    file.seek(0)
    length, text = _read_header(file)
    if not text.startswith(CHECKSUM_START):
        return False
    start, end = len(CHECKSUM_START), len(CHECKSUM_START) + len(NO_CHECKSUM)
    digest = hashlib.sha256(length + text[:start] + NO_CHECKSUM.encode() + text[end:])
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
    if digest.hexdigest().encode() != text[start:end]:
        raise DamagedError("its checksum is not that of its content")
    return True


def read_header(file: FileIO, file_size: int) -> Header:
    """What a file holds, after a check that the tensors are all there is behind the header.

    Raises:
        DamagedError: it is not such a file.
        OSError: the file cannot be read.
    """
    file.seek(0)
    length, text = _read_header(file)
    entries = parse_json(text.decode(errors="replace"))
    if not isinstance(entries, dict):
        raise DamagedError("its header is not a JSON object")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(x) is not str for x in metadata.values()):
        raise DamagedError("its header's notes are not text")
    places = {name: _place(name, entry) for name, entry in entries.items()}
    end = 0
    for place in sorted(places.values(), key=lambda place: (place.begin, place.end)):
        if place.begin != end:
            raise DamagedError("its tensors overlap or leave a gap")
        end = place.end
    size = len(length) + len(text)
    if size + end != file_size:
        raise DamagedError(f"it has {file_size:,} bytes, and its header says {size + end:,}")
    return Header(size, metadata, places)


def read_tensors(file: FileIO, header: Header) -> dict[str, Tensor]:
    """All tensors of the file, on the CPU.

    Raises:
        DamagedError: the file is shorter than its header says, or memory does not hold it.
        OSError: the file cannot be read.
    """
    return {name: _read_tensor(file, header.size, place) for name, place in header.places.items()}


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        DamagedError: the text is not JSON, is nested too deeply, or has a number without an end.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError("its header is not JSON that this program writes") from error


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
    if flat.stride(0) != 1:  # one number that was expanded counts as contiguous
        flat = flat.clone(memory_format=torch.contiguous_format)
    return _view_of(flat.view(torch.uint8))


def _view_of(data: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU, which share its memory."""
    array: Any = data.numpy()
    return memoryview(array)


def _read_header(file: FileIO) -> tuple[bytes, bytes]:
    """The header's length as the file has it, and the header."""
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if len(length) < 8 or size > MAX_HEADER_BYTES:
        raise DamagedError("it does not begin with the length of a header")
    text = file.read(size)
    if len(text) < size:
        raise DamagedError("it ends within its header")
    return length, text


def _place(name: str, entry: Any) -> Place:
    try:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        begin, end = entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError("its header does not say where a tensor is") from error
    whole = all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    # Axes of length 0 hide a product that torch could not hold.
    if not whole or len(shape) > MAX_AXES or math.prod(max(n, 1) for n in shape) >= 2**59:
        raise DamagedError("its header gives a tensor a shape that none has")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise DamagedError("its header gives a tensor another size than its shape")
    return Place(dtype, list(shape), begin, end)


def _read_tensor(file: FileIO, start: int, place: Place) -> Tensor:
    try:
        data = torch.empty(place.end - place.begin, dtype=torch.uint8)
    except (RuntimeError, MemoryError) as error:
        raise DamagedError("memory does not hold its tensors") from error
    file.seek(start + place.begin)
    rest = _view_of(data)
    while rest:
        count = file.readinto(rest)
        if not count:
            raise DamagedError("it ends within a tensor")
        rest = rest[count:]
    if place.dtype == torch.bool and bool((data > 1).any()):
        raise DamagedError("a truth value in it is neither 0 nor 1")  # torch would not check
    return data.view(place.dtype).reshape(place.shape)
