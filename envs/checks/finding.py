"""Findings of a check: a status, the observation, its effect on training, and advice."""

import dataclasses
import inspect
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Literal, final

from pgtoolkit.user_code import describe_exception

Status = Literal["pass", "warning", "fault", "not checked"]

Part = Literal["interface", "behaviour", "gradients", "horizon"]

LIBRARY_MODULES = ("builtins", "abc", "typing", "gymnasium.core", "pgtoolkit.envs.differentiable")
"""Modules of base classes that are not the user's code."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    part: Part
    check: str
    """Name of the check."""
    status: Status
    """A fault makes training wrong or impossible; a warning is worth knowing before it starts. What
    could not be checked is neither good nor bad."""
    finding: str
    """The observation, with numbers; the reason why there is none, if it was not checked."""
    meaning: str = ""
    """The effect on training; only of a warning and a fault."""
    advice: str = ""
    """Advice on a remedy; only of a warning and a fault."""


@final
@dataclasses.dataclass(frozen=True)
class Check:
    """A named check of one part of an environment. Its methods make findings under that name."""

    part: Part
    name: str

    def passed(self, finding: str) -> Finding:
        """A finding that something was checked and nothing is wrong."""
        return Finding(part=self.part, check=self.name, status="pass", finding=finding)

    def not_checked(self, reason: str) -> Finding:
        """A finding that nothing is known; ``reason`` says why."""
        return Finding(part=self.part, check=self.name, status="not checked", finding=reason)

    def warning(self, finding: str, meaning: str, advice: str) -> Finding:
        """A finding that the user should know before training starts; training is possible."""
        return self._problem("warning", finding, meaning, advice)

    def fault(self, finding: str, meaning: str, advice: str) -> Finding:
        """A finding that makes training wrong or impossible."""
        return self._problem("fault", finding, meaning, advice)

    def run(self, env: object, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
        """The findings of ``check()``, which calls ``env``; an exception in it becomes a fault."""
        found: list[Finding] = []
        try:
            found.extend(check())
        except (Exception, SystemExit) as error:  # an environment may raise anything, and exit
            found.append(
                self.fault(
                    f"raised {describe_error(env, error)}",
                    "the environment cannot be used like this",
                    advice_for(error),
                )
            )
        return found

    def _problem(self, status: Status, finding: str, meaning: str, advice: str) -> Finding:
        return Finding(
            part=self.part,
            check=self.name,
            status=status,
            finding=finding,
            meaning=meaning,
            advice=advice,
        )


def has_fault(findings: Iterable[Finding], *checks: str) -> bool:
    """Whether one of the named checks found a fault; without names, whether any check did."""
    return any(f.status == "fault" and (not checks or f.check in checks) for f in findings)


def describe_error(env: object, error: BaseException) -> str:
    """``file.py, line 3: NameError: ...``, at the last line of the environment's own files.

    Without a file and a line if the error passed through none of these files.
    """
    traceback_files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    own = [file for file in class_files(env) if file in traceback_files]
    if own:
        return " ".join(describe_exception(error, own[0]).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def class_files(env: object) -> list[str]:
    """The files that define an environment's class and its bases, the most derived first."""
    classes: list[Any] = [c for c in type(env).__mro__ if c.__module__ not in LIBRARY_MODULES]
    files = []
    for cls in classes:
        try:
            files.append(inspect.getfile(cls))
        except (TypeError, OSError):
            continue  # defined at a prompt, or built in
    return files


def advice_for(error: BaseException) -> str:
    """Advice on how to avoid an exception, chosen by the words of its message."""
    text = str(error)
    if "dtype" in text or "Double" in text or "double" in text:
        return (
            "make constants in the dtype of the state: state.new_tensor(...), or constant.to(state)"
        )
    if "in-place" in text or "inplace" in text:
        return "build new tensors (torch.where, torch.stack) instead of writing into the old ones"
    if "numpy()" in text or "requires grad" in text:
        return "use torch functions only: NumPy and .item() do not carry a gradient"
    return "fix the line that is named"
