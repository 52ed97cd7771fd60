"""Checkpoints: one safetensors file without pickle, with a checksum, replaced atomically.

A nested state of dictionaries, lists, tuples, tensors and plain values is stored in one file: the
tensors by numbered names, and everything else as JSON in the file's header. Loading makes values of
these kinds only, and runs no code.
"""

import json
import logging
import os
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.training.storage.files import (
    RefusedFileError,
    excerpt,
    open_regular,
    replace_file,
    system_reason,
)
from pgtoolkit.training.storage.tensor_file import (
    DTYPE_NAMES,
    DamagedError,
    encode,
    parse_json,
    read_header,
    read_tensors,
    verify,
)
from pgtoolkit.version import __version__

LOG = logging.getLogger("pgtoolkit")

FORMAT_NAME = "pgtoolkit-checkpoint-"
"""Beginning of the header's entry by which a checkpoint is recognised; the version follows."""

FORMAT_VERSION = 2
"""Version 1 had no checksum, and did not say which version of the package wrote it."""

MAX_DEPTH = 100
"""Dictionaries and lists inside each other; an agent's state has some ten."""

MAX_CHECKPOINT_BYTES = 64 * 1024**3
"""A replay buffer of ten million transitions of 700 numbers has 56 GB."""


class CheckpointError(RequestError):
    """A checkpoint is missing, damaged or not a checkpoint: an older one may serve.

    Attributes:
        problem: the message without its advice.
    """

    def __init__(self, problem: str, advice: str = "name a run that has a whole one") -> None:
        self.problem = problem
        super().__init__(f"{problem}: {advice}")


def save_checkpoint(path: Path, state: dict[str, Any], *, inside: Path | None = None) -> None:
    """Writes a nested state to a file, atomically.

    The data go to a temporary file, are flushed to disk, and the file is renamed. After a crash
    ``path`` is either the old file or the complete new one.

    Args:
        path: the file.
        state: its content.
        inside: the folder out of which no link may lead; the file's own by default.

    Raises:
        TypeError: the state contains a value that cannot be stored.
        RequestError: the file's folder is a link that leads out of ``inside``.
        OSError: the system refuses, such as on a full disk; the old file is still there.
    """
    replace_file(path, encode_state(state), inside=inside or path.parent)


def encode_state(state: dict[str, Any]) -> list[bytes | memoryview]:
    """The parts of a checkpoint's file. The state must not change until they are written.

    Raises:
        TypeError: the state contains a value that cannot be stored.
        ValueError: it is nested too deeply, or has too much that is not in tensors.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_pack(state, "", tensors, 0))
    format_name = f"{FORMAT_NAME}{FORMAT_VERSION}"
    notes = {"format": format_name, "written_by": f"pgtoolkit {__version__}", "state": skeleton}
    return encode(tensors, notes)


def load_checkpoint(
    path: Path,
    device: torch.device | None = None,
    *,
    inside: Path | None = None,
    limit: int = MAX_CHECKPOINT_BYTES,
) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote.

    Args:
        path: the file.
        device: the device of the loaded tensors; the CPU by default.
        inside: the folder out of which no link may lead; the file's own by default.
        limit: the size of the largest file that is read, in bytes; never more than memory holds.

    Raises:
        CheckpointError: the file is missing, damaged, or not a checkpoint.
        RequestError: a newer version wrote it.
    """
    try:
        with open_regular(
            path, inside=inside or path.parent, limit=min(limit, _memory_bytes())
        ) as file:
            return _load(file, path, device or torch.device("cpu"))
    except DamagedError as error:
        raise CheckpointError(f"the checkpoint {excerpt(path)} is damaged ({error})") from error
    except RefusedFileError as error:
        raise CheckpointError(f"the checkpoint cannot be read ({error})") from error
    except OSError as error:
        reason = system_reason(error)
        raise CheckpointError(
            f"the checkpoint {excerpt(path)} cannot be read ({reason})"
        ) from error
    except MemoryError as error:
        raise CheckpointError(f"memory does not hold the checkpoint {excerpt(path)}") from error


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _load(file: FileIO, path: Path, device: torch.device) -> dict[str, Any]:
    checked = verify(file)
    header = read_header(file, os.fstat(file.fileno()).st_size)
    version = _version(header.metadata, path)
    if version >= 2 and not checked:
        raise DamagedError("it has no checksum, and had one when it was written")
    if not checked:
        LOG.warning(
            "%s was written by an earlier version and has no checksum: damage to it is not noticed",
            path,
        )
    tensors = read_tensors(file, header)
    state = _unpack(parse_json(header.metadata.get("state", "")), tensors, 0)
    if not isinstance(state, dict) or tensors:
        raise DamagedError("its state is not a dictionary of all its tensors")
    return _moved(state, device) if device.type != "cpu" else state


def _version(metadata: dict[str, str], path: Path) -> int:
    """The version of the format, known to this program."""
    name = metadata.get("format", "")
    number = name.removeprefix(FORMAT_NAME)
    if number == name or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise CheckpointError(f"{excerpt(path)} is not a pgtoolkit checkpoint", "name one that is")
    version = int(number)
    if version > FORMAT_VERSION:
        writer = excerpt(metadata.get("written_by", "a newer version of pgtoolkit"))
        raise RequestError(
            f"the checkpoint {excerpt(path)} was written by {writer} in format {version}, and "
            f"pgtoolkit {__version__} reads formats up to {FORMAT_VERSION}: update pgtoolkit"
        )
    return version


def _pack(value: Any, path: str, tensors: dict[str, Tensor], depth: int) -> Any:
    """The value as JSON, with its tensors replaced by names and added to ``tensors``.

    ``path`` is the value's place in the state, such as ``/agent/policy``.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"a checkpoint holds {MAX_DEPTH} levels at most (at {path[:80]}...)")
    if isinstance(value, Tensor):
        if value.dtype not in DTYPE_NAMES or value.layout != torch.strided:
            raise TypeError(f"a checkpoint cannot hold a tensor of {value.dtype} (at {path})")
        name = f"{len(tensors)}{path}"  # numbered, because two paths may be equal as text
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, dict):
        for key in value:
            if not _is_plain(key):
                raise TypeError(f"a checkpoint cannot hold a {type(key).__name__} as key ({path})")
        items = [[k, _pack(v, f"{path}/{k}", tensors, depth + 1)] for k, v in value.items()]
        return {"$dict": items}
    if isinstance(value, list | tuple):
        kind = "$list" if isinstance(value, list) else "$tuple"
        return {kind: [_pack(v, f"{path}/{i}", tensors, depth + 1) for i, v in enumerate(value)]}
    if _is_plain(value):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__} (at {path})")


def _unpack(value: Any, tensors: dict[str, Tensor], depth: int) -> Any:
    """The value that :func:`_pack` turned into JSON and tensors, which it takes out of ``tensors``.

    Raises:
        DamagedError: the JSON is not what ``_pack`` makes.
    """
    if depth > MAX_DEPTH:
        raise DamagedError(f"its state is nested more than {MAX_DEPTH} levels deep")
    if _is_plain(value):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise DamagedError("its state is not of the kinds that a checkpoint holds")
    ((kind, content),) = value.items()
    if kind == "$tensor" and isinstance(content, str) and content in tensors:
        return tensors.pop(content)
    if kind == "$dict" and isinstance(content, list):
        return _unpack_dict(content, tensors, depth)
    if kind in ("$list", "$tuple") and isinstance(content, list):
        items = [_unpack(item, tensors, depth + 1) for item in content]
        return items if kind == "$list" else tuple(items)
    raise DamagedError("its state names a kind or a tensor that does not exist")


def _unpack_dict(content: list[Any], tensors: dict[str, Tensor], depth: int) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in content:
        if not isinstance(pair, list) or len(pair) != 2 or not _is_plain(pair[0]):
            raise DamagedError("its state has a dictionary whose keys and values do not match")
        if pair[0] in found:
            raise DamagedError("its state has a dictionary with the same key twice")
        found[pair[0]] = _unpack(pair[1], tensors, depth + 1)
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _moved(value: Any, device: torch.device) -> Any:
    """The value with all its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_moved(item, device) for item in value)
    return value
