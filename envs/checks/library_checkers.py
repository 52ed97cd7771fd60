"""The environment checkers of Gymnasium and Stable-Baselines3, as findings."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator

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
)
"""Parts of warnings that do not matter here."""

SB3_RESTRICTIONS = ("must have a finite lower and upper bound",)
"""Parts of errors about what the agents of Stable-Baselines3 refuse, and those here do not."""


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
        yield SB3.passed("not checked: stable-baselines3 is missing")
        return
    yield _outcome(SB3, blamed, lambda: check_env(env, skip_render_check=True))


def _outcome(check: Check, env: object, call: Callable[[], None]) -> Finding:
    """Runs a checker; its error, else its warnings, else a pass."""
    with (
        warnings.catch_warnings(record=True) as caught,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("always")
        try:
            call()
        except Exception as error:  # the checker or the environment may raise anything
            return _error(check, env, error)
    own_files = class_files(env)
    texts = [_one_line(str(w.message)) for w in caught if w.filename not in own_files]
    texts = [text for text in dict.fromkeys(texts) if text and not _is_ignored(text)]
    if not texts:
        return check.passed("nothing to say")
    more = f" (and {len(texts) - 2} more)" if len(texts) > 2 else ""
    return check.warning(
        " | ".join(texts[:2]) + more,
        "other libraries may stumble over it",
        "see what each says; many are matters of taste",
    )


def _error(check: Check, env: object, error: Exception) -> Finding:
    text = _one_line(str(error))
    if isinstance(error, AssertionError) and any(part in text for part in SB3_RESTRICTIONS):
        return check.warning(text, "its agents refuse this space; ours do not", "-")
    return check.fault(
        text if isinstance(error, AssertionError) else describe_error(env, error),
        "the environment does not keep to Gymnasium's interface",
        "do as it says; https://gymnasium.farama.org/api/env",
    )


def _is_ignored(text: str) -> bool:
    return any(part in text for part in IGNORED_WARNINGS)


def _one_line(text: str) -> str:
    """The message without colour codes and line breaks, cut at :data:`MAX_MESSAGE_LENGTH`."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("WARN: ", "")
    line = " ".join(plain.split())
    return line if len(line) <= MAX_MESSAGE_LENGTH else line[: MAX_MESSAGE_LENGTH - 3] + "..."
