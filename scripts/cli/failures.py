"""What the command line says about an exception: at most three lines, and the exit code."""

import os
import sysconfig
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from pgtoolkit.errors import (
    EnvFaultError,
    ExportError,
    LostProcessError,
    NonFiniteError,
    RequestError,
    RunFileError,
    bounded,
)

TRACEBACK_VARIABLE = "PGTOOLKIT_TRACEBACK"
"""With this variable set to 1, every error is shown with its traceback."""

REPORTED = (
    RequestError,
    NonFiniteError,
    EnvFaultError,
    ExportError,
    LostProcessError,
    RunFileError,
)
"""Errors whose message says all that there is to say."""

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
"""Parts of the texts by which torch says that there is no memory left."""

DEPENDENCIES = frozenset(
    (
        "PIL",
        "gymnasium",
        "mlflow",
        "numpy",
        "onnx",
        "onnx_ir",
        "onnxruntime",
        "onnxscript",
        "optuna",
        "rich",
        "safetensors",
        "scipy",
        "tensorboard",
        "torch",
        "torchgen",
        "trackio",
        "tyro",
        "wandb",
        "yaml",
    )
)
"""Packages whose frames in a traceback are not the user's code."""


def exit_code(error: BaseException) -> int:
    """2 for a wrong request, 1 for everything else."""
    return 2 if isinstance(error, RequestError) else 1


def describe(error: BaseException) -> str:
    """The lines to show: what happened, where, and what to do."""
    notes = " ".join(getattr(error, "__notes__", []))
    text = bounded(error.with_flags if isinstance(error, RequestError) else error)
    if isinstance(error, REPORTED):
        return joined(f"error: {text}", notes)
    if is_out_of_memory(error):
        advice = "make --num-envs, --n-steps or --hidden smaller"
        return joined(f"error: out of memory ({text}): {advice}", notes)
    name = f"{type(error).__name__}: {text}".removesuffix(": ")
    frame = foreign_frame(error)
    if frame is not None:
        return joined(f"error: {name} ({_place(*frame)})", notes)
    if isinstance(error, OSError):
        return joined(f"error: {text}", notes)
    return (
        joined(f"error: {name} ({_last_place(error)})", notes)
        + "\nthis is a fault of pgtoolkit, unless `pgtoolkit check-env` finds one in the "
        f"environment: run again with {TRACEBACK_VARIABLE}=1 and report it"
    )


def joined(text: str, notes: str) -> str:
    """A text and its notes on one line; a note that begins a sentence ends the one before it."""
    stop = "." if notes[:1].isupper() and not text.endswith(".") else ""
    return f"{text}{stop} {notes}".rstrip()


def wanted_traceback(error: BaseException) -> str:
    """The traceback if the user asked for it, else nothing."""
    if os.environ.get(TRACEBACK_VARIABLE, "0") in ("", "0"):
        return ""
    return "".join(traceback.format_exception(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the exception says that there is no memory left, on the host or the device."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        part in str(error).lower() for part in OUT_OF_MEMORY
    )


def foreign_frame(error: BaseException) -> tuple[FrameType, int] | None:
    """The innermost frame of code that is neither ours nor a dependency's, and its line.

    It is that of an environment or of a wrapper. Frames from before our first one, such as those of
    a script that calls a command, do not count.
    """
    found, inside = None, False
    for frame, line in _frames(error.__traceback__):
        file = os.path.realpath(frame.f_code.co_filename)
        ours = _is_ours(file)
        inside = inside or ours
        if inside and not ours and not _is_library(file):
            found = frame, line
    return found


def _frames(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    """Frames and lines, the outermost first."""
    return list(traceback.walk_tb(trace))


def _is_ours(file: str) -> bool:
    return any(file.startswith(root + os.sep) for root in _own_roots())


def _own_roots() -> list[str]:
    """Folders of this package; some of them are links where it is installed in place."""
    package = Path(__file__).absolute().parents[2]
    package = package if package.name == "pgtoolkit" else package / "pgtoolkit"
    parts = [package, *(package / name for name in ("agents", "envs", "scripts"))]
    return [os.path.realpath(part) for part in parts]


def _is_library(file: str) -> bool:
    """Whether a file belongs to Python or a dependency, or is no file (compiled code)."""
    if not os.path.isfile(file) or "torchinductor" in file:
        return True
    for name in ("purelib", "platlib"):
        folder = os.path.realpath(sysconfig.get_path(name)) + os.sep
        if file.startswith(folder):
            return Path(file).relative_to(folder).parts[0].removesuffix(".py") in DEPENDENCIES
    standard = os.path.realpath(sysconfig.get_path("stdlib")) + os.sep
    return file.startswith(standard) and "site-packages" not in file


def _place(frame: FrameType, line: int) -> str:
    code = frame.f_code
    return f"{code.co_filename}, line {line}, in {code.co_name}"


def _last_place(error: BaseException) -> str:
    """The innermost of our own frames."""
    ours = [
        _place(frame, line)
        for frame, line in _frames(error.__traceback__)
        if _is_ours(os.path.realpath(frame.f_code.co_filename))
    ]
    return ours[-1] if ours else "outside pgtoolkit"
