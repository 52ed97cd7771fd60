"""Checkpoints: one file, no pickle, never half written.

A nested state of dictionaries, lists, tuples, tensors and plain values becomes a safetensors file:
the tensors under their path, everything else as JSON in the file's header.
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


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes to a temporary name, flushes to disk, then renames: the old file or the new, whole."""
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
        os.fsync(folder)  # the new name, too, must be on disk
    finally:
        os.close(folder)


def load_checkpoint(path: Path, device: torch.device | None = None) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote.

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
    if isinstance(value, Tensor):
        name = f"{len(tensors)}{path}"  # numbered: two paths may read alike
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
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "$tensor":
        return tensors[content]
    if kind == "$dict":
        return {key: _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "$list" else tuple(items)
