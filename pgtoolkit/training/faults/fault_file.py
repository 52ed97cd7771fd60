"""``fault-*.json`` in a run's folder: what went wrong, where, and how to look at it again.

Beside it, ``fault-*.safetensors`` holds the recording: the states, noise and steps from which the
last windows can be taken again.
"""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pgtoolkit.errors import RequestError, single_line
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint
from pgtoolkit.training.storage.files import read_regular, replace_file

LOG = logging.getLogger("pgtoolkit")

FORMAT = "pgtoolkit-fault-1"
"""Entry by which a fault file is recognised."""
MAX_BYTES = 64 * 2**20
"""Largest fault file that is read: an episode's replay has a few numbers for each step."""


def write_fault(
    folder: Path, fault: Mapping[str, Any], recording: Mapping[str, Any] | None
) -> Path:
    """Writes the fault and its recording under a new name in the folder.

    Args:
        folder: the run's folder.
        fault: what is known of the fault; it has ``num_steps``. Numbers that JSON cannot hold
            become strings.
        recording: what :func:`~pgtoolkit.training.checkpoint.save_checkpoint` can store; None where
            there is none.

    Returns:
        The path of the JSON file.

    Raises:
        OSError: the files cannot be written; what was written of them is removed.
    """
    path = new_path(folder, int(fault["num_steps"]))
    recorded = path.with_suffix(".safetensors")
    try:
        if recording is not None:
            save_checkpoint(recorded, dict(recording))
        name = None if recording is None else recorded.name
        content = {"format": FORMAT, **fault, "recording": name, "look": look(folder, path)}
        text = json.dumps(json_value(content), indent=2, allow_nan=False) + "\n"
        replace_file(path, [text.encode()], inside=folder)
    except (OSError, TypeError, ValueError):
        for part in (path, recorded):
            part.unlink(missing_ok=True)
        raise
    return path


def look(folder: Path, path: Path) -> str:
    """The command that explains the fault."""
    return f"pgtoolkit explain {folder} --fault {path.name}"


def new_path(folder: Path, num_steps: int) -> Path:
    """``fault-{num_steps}.json``, with a number appended if it exists already."""
    path, number = folder / f"fault-{num_steps}.json", 1
    while os.path.lexists(path) or os.path.lexists(path.with_suffix(".safetensors")):
        number += 1
        path = folder / f"fault-{num_steps}-{number}.json"
    return path


def fault_files(folder: Path) -> list[Path]:
    """The fault files of a run, the oldest first."""
    found = [path for path in folder.glob("fault-*.json") if os.path.lexists(path)]
    return sorted(found, key=lambda path: (os.lstat(path).st_mtime_ns, path.name))


def read_fault(path: Path) -> dict[str, Any]:
    """A fault, as :func:`write_fault` wrote it.

    Raises:
        RequestError: the file is missing, too large, or not a fault file.
    """
    fault: dict[str, Any]
    try:
        text = read_regular(path, inside=path.parent, limit=MAX_BYTES).decode()
        fault = json.loads(text)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{path} cannot be read: {single_line(error)}") from error
    whole = isinstance(fault, dict) and all(
        isinstance(fault.get(name), int) and not isinstance(fault.get(name), bool)
        for name in ("num_steps", "num_updates")
    )
    if not whole or fault.get("format") != FORMAT or not isinstance(fault.get("message"), str):
        raise RequestError(f"{path} is no file of a fault: name one of the run's fault-*.json")
    return fault


def read_recording(path: Path, fault: Mapping[str, Any]) -> dict[str, Any] | None:
    """The recording beside a fault file; None if it has none.

    Only the file of the fault's own name is read, whatever the fault says.

    Raises:
        RequestError: the recording cannot be read.
    """
    if fault.get("recording") is None:
        return None
    return load_checkpoint(path.with_suffix(".safetensors"))


def json_value(value: Any) -> Any:
    """The value as JSON can hold it: NaN and infinity as strings, arrays as lists."""
    if isinstance(value, Tensor):
        return json_value(value.detach().cpu().numpy())
    if isinstance(value, np.ndarray | np.generic):
        return json_value(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
