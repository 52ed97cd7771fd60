"""Checkpoints: one safetensors file without pickle, replaced atomically.

A nested state of dictionaries, lists, tuples, tensors and plain values is stored in one file: the
tensors by numbered names, and everything else as JSON in the file's header.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pgtoolkit.errors import RequestError

FORMAT = "pgtoolkit-checkpoint-1"
"""Entry in the header by which a checkpoint is recognised."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes a nested state to a file, atomically.

    The data go to a temporary file, are flushed to disk, and the file is renamed. After a crash
    ``path`` is either the old file or the complete new one.

    Raises:
        TypeError: the state contains a value that cannot be stored.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _pack(state, "", tensors)
    data = save(tensors, metadata={"format": FORMAT, "state": json.dumps(skeleton)})
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # so that the new name is on disk too
    finally:
        os.close(folder)


def load_checkpoint(path: Path, device: torch.device | None = None) -> dict[str, Any]:
    """The state that :func:`save_checkpoint` wrote.

    Args:
        path: the file.
        device: the device of the loaded tensors; the CPU by default.

    Raises:
        RequestError: the file is missing, damaged, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt", device=str(device or "cpu")) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RequestError(f"{path} is not a pgtoolkit checkpoint: name one that is")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RequestError(
            f"the checkpoint {path} cannot be read ({error}): name a run that has one"
        ) from error
    state: dict[str, Any] = _unpack(json.loads(metadata["state"]), tensors)
    return state


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON, with its tensors replaced by names and added to ``tensors``.

    ``path`` is the value's place in the state, such as ``/agent/policy``.
    """
    if isinstance(value, Tensor):
        name = f"{len(tensors)}{path}"  # numbered, because two paths may be equal as text
        tensors[name] = value.detach().contiguous().clone()
        return {"$tensor": name}
    if isinstance(value, dict):
        return {"$dict": [[k, _pack(v, f"{path}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "$list" if isinstance(value, list) else "$tuple"
        return {kind: [_pack(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__} (at {path})")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that :func:`_pack` turned into JSON and tensors."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "$list" else tuple(items)
