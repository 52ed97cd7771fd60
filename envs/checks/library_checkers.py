"""The environment checkers of Gymnasium and Stable-Baselines3, as findings.

What they say is a warning at most. They test rules that training here does not need, such as ``flag
is False``, which a NumPy boolean breaks, or observations that are equal although one is NaN. What
training needs is tested by the other checks, and they alone report faults.
"""

import contextlib
import io
import re
import traceback
import warnings
from collections.abc import Callable, Iterator

import gymnasium
from gymnasium.utils import env_checker

from pgtoolkit.envs.checks.finding import Check, Finding, class_files, describe_error
from pgtoolkit.gymnasium_types import AnyEnv

GYMNASIUM = Check("interface", "Gymnasium's checker")

SB3 = Check("interface", "SB3's checker")

MAX_MESSAGE_LENGTH = 160

IGNORED_WARNINGS = (
    # Most observations have no bounds.
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
    "infinity",
    # Rendering is not checked.
    "alternative render modes",
    # Every policy of this package rescales its actions to the box.
    "symmetric and normalized",
    # The wrapper that leaves out actions which a mask forbids.
    "is different from the unwrapped version",
)
"""Parts of warnings that do not matter here."""

STATEMENTS = (AssertionError, gymnasium.error.Error)
"""Errors by which a checker says something about an environment."""


def check_with_gymnasium(env: AnyEnv, blamed: object) -> Iterator[Finding]:
    """``gymnasium.utils.env_checker.check_env``, without rendering.

    Args:
        env: without wrappers.
        blamed: the object whose class files hold the user's code; errors are located there.
    """

    def call() -> None:
        env_checker.check_env(env, skip_render_check=True, skip_close_check=True)

    yield _outcome(GYMNASIUM, blamed, call)


def check_with_sb3(env: AnyEnv, blamed: object) -> Iterator[Finding]:
    """``stable_baselines3.common.env_checker.check_env``, if that package is installed.

    Args:
        env: without wrappers.
        blamed: the object whose class files hold the user's code; errors are located there.
    """
    try:
        from stable_baselines3.common.env_checker import check_env
    except ImportError:
        yield SB3.not_checked("stable-baselines3 is not installed")
        return
    yield _outcome(SB3, blamed, lambda: check_env(env, skip_render_check=True))


def _outcome(check: Check, env: object, call: Callable[[], None]) -> Finding:
    """Runs a checker: what it says by an error, else by warnings, else a pass."""
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("always")
        try:
            call()
        except (Exception, SystemExit) as error:  # checker and environment may raise anything
            return _error(check, env, error)
    own_files = class_files(env)
    texts = [_one_line(str(w.message)) for w in caught if w.filename not in own_files]
    texts = [text for text in dict.fromkeys(texts) if text and not _is_ignored(text)]
    if not texts:
        return check.passed("nothing to say")
    more = f" (and {len(texts) - 2} more)" if len(texts) > 2 else ""
    return _said(check, " | ".join(texts[:2]) + more)


def _said(check: Check, text: str) -> Finding:
    return check.warning(
        text,
        "other libraries may stumble over it; what training here needs is checked below",
        "see what it says; much is a matter of taste",
    )


def _error(check: Check, env: object, error: BaseException) -> Finding:
    """A warning if the checker says something about the environment, else that it broke off."""
    if isinstance(error, STATEMENTS) and _raised_by_checker(error):
        return _said(check, _one_line(str(error)))
    return check.not_checked(f"the checker broke off: {_one_line(describe_error(env, error))}")


def _raised_by_checker(error: BaseException) -> bool:
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return "env_checker" in last


def _is_ignored(text: str) -> bool:
    return any(part in text for part in IGNORED_WARNINGS)


def _one_line(text: str) -> str:
    """The message without colour codes and line breaks, cut at :data:`MAX_MESSAGE_LENGTH`."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("WARN: ", "")
    line = " ".join(plain.split())
    return line if len(line) <= MAX_MESSAGE_LENGTH else line[: MAX_MESSAGE_LENGTH - 3] + "..."
