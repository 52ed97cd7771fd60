"""What a check of an environment found, and what to do about it."""

import dataclasses
import inspect
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Literal, final

from pgtoolkit.envs.registry.construct import describe_exception

Status = Literal["pass", "warning", "fault"]

Part = Literal["interface", "behaviour", "gradients", "horizon"]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the answer."""

    part: Part
    check: str
    """What was looked at."""
    status: Status
    """A fault makes training wrong or impossible; a warning is worth knowing before it starts."""
    finding: str
    """What was seen, with numbers."""
    meaning: str = ""
    """What it does to training; empty for a pass."""
    advice: str = ""
    """What to do; empty for a pass."""


def passed(part: Part, check: str, finding: str) -> Finding:
    """Nothing wrong here, or nothing that could be looked at."""
    return Finding(part=part, check=check, status="pass", finding=finding)


def warned(part: Part, check: str, finding: str, meaning: str, advice: str) -> Finding:
    """Worth knowing."""
    return Finding(
        part=part, check=check, status="warning", finding=finding, meaning=meaning, advice=advice
    )


def fault(part: Part, check: str, finding: str, meaning: str, advice: str) -> Finding:
    """Wrong."""
    return Finding(
        part=part, check=check, status="fault", finding=finding, meaning=meaning, advice=advice
    )


def has_fault(findings: Iterable[Finding], *checks: str) -> bool:
    """Whether one of these checks found a fault; without names, whether any did."""
    return any(f.status == "fault" and (not checks or f.check in checks) for f in findings)


def guarded(
    env: object, part: Part, check: str, look: Callable[[], Iterable[Finding]]
) -> list[Finding]:
    """What ``look`` finds; an error that the environment raises meanwhile is a finding too."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except Exception as error:  # whatever a user's code may raise
        found.append(fault(part, check, f"raised {where(env, error)}", RAISED, see_line(error)))
    return found


def where(env: object, error: BaseException) -> str:
    """``file.py, line 3: NameError: ...``: the last line of the environment's own code."""
    passed_through = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in class_files(env) if file in passed_through]
    if own:
        return " ".join(describe_exception(error, own[0]).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def class_files(env: object) -> list[str]:
    """The files of an environment's class and of its bases, the most derived first."""
    kinds: list[Any] = [k for k in type(env).__mro__ if k.__module__ not in NOT_THE_USERS]
    files = []
    for kind in kinds:
        try:
            files.append(inspect.getfile(kind))
        except (TypeError, OSError):
            continue  # made at a prompt, or built in
    return files


def see_line(error: BaseException) -> str:
    """What to do about an error."""
    text = str(error)
    if "dtype" in text or "Double" in text or "double" in text:
        return (
            "make constants in the dtype of the state: state.new_tensor(...), or constant.to(state)"
        )
    if "in-place" in text or "inplace" in text:
        return "build new tensors (torch.where, torch.stack) instead of writing into the old ones"
    if "numpy()" in text or "requires grad" in text:
        return "stay with torch functions: NumPy and .item() know nothing of gradients"
    return "mend the line that is named"


NOT_THE_USERS = ("builtins", "abc", "typing", "gymnasium.core", "pgtoolkit.envs.differentiable")

RAISED = "the environment cannot be used like this"
