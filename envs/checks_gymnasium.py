"""The checkers of Gymnasium and of Stable-Baselines3, whose words become findings."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
from gymnasium.utils import env_checker

from pgtoolkit.envs.finding import Finding, class_files, fault, passed, warned, where

Env = gymnasium.Env[Any, Any]


def check_with_gymnasium(env: Env, blamed: object) -> Iterator[Finding]:
    """``gymnasium.utils.env_checker.check_env``, without pictures.

    Args:
        env: without wrappers.
        blamed: whose code errors are looked for in.
    """

    def check() -> None:
        env_checker.check_env(env, skip_render_check=True, skip_close_check=True)

    yield from _reported("Gymnasium's checker", blamed, check)


def check_with_sb3(env: Env, blamed: object) -> Iterator[Finding]:
    """``stable_baselines3.common.env_checker.check_env``, if that package is there."""
    try:
        from stable_baselines3.common.env_checker import check_env
    except ImportError:
        yield passed("interface", "SB3's checker", "not checked: stable-baselines3 is missing")
        return
    yield from _reported("SB3's checker", blamed, lambda: check_env(env, skip_render_check=True))


def _reported(name: str, env: object, check: Callable[[], None]) -> Iterator[Finding]:
    silence = io.StringIO()
    with warnings.catch_warnings(record=True) as heard, contextlib.redirect_stdout(silence):
        warnings.simplefilter("always")
        try:
            check()
        except Exception as error:  # whatever the checker or the environment raises
            yield _error(name, env, error)
            return
    said = [text for w in heard if not _is_of_the_environment(w, env) and (text := _text(w))]
    said = [text for text in dict.fromkeys(said) if not any(known in text for known in KNOWN)]
    if said:
        more = f" (and {len(said) - 2} more)" if len(said) > 2 else ""
        text = " | ".join(said[:2]) + more
        advice = "see what each says; many are matters of taste"
        yield warned("interface", name, text, "other libraries may stumble over it", advice)
    else:
        yield passed("interface", name, "nothing to say")


def _error(name: str, env: object, error: Exception) -> Finding:
    text = _shortened(str(error))
    if isinstance(error, AssertionError) and any(known in text for known in ONLY_SB3):
        return warned("interface", name, text, "its agents refuse this space; ours do not", "-")
    if not isinstance(error, AssertionError):
        text = where(env, error)
    return fault(
        "interface",
        name,
        text,
        "the environment does not keep to Gymnasium's interface",
        "do as it says; https://gymnasium.farama.org/api/env",
    )


def _is_of_the_environment(warning: warnings.WarningMessage, env: object) -> bool:
    return warning.filename in class_files(env)


def _text(warning: warnings.WarningMessage) -> str:
    return _shortened(str(warning.message))


def _shortened(text: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("WARN: ", "")
    first = " ".join(plain.split())
    return first if len(first) <= LONGEST else first[: LONGEST - 3] + "..."


LONGEST = 160
KNOWN = (
    # A box without bounds is what most observations are.
    "A Box observation space minimum value is -infinity",
    "A Box observation space maximum value is infinity",
    "infinity",
    # We leave pictures out on purpose.
    "alternative render modes",
    # Every policy here rescales its actions to the box.
    "symmetric and normalized",
)
ONLY_SB3 = ("must have a finite lower and upper bound",)
