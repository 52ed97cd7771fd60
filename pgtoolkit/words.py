"""Messages in the words of Python: ``num_envs=8`` where the command line has ``--num-envs 8``."""

import json
import re

SPOKEN = re.compile(
    r"(?P<command>`[^`]*`)|(?P<help> \(see [^()]* --help\))|"
    r"(?P<no>--no-(?P<off>[a-z][a-z-]*[a-z]))|--(?P<flag>[a-z][a-z0-9-]*[a-z])"
    r"(?P<value> (?:'\{.*?\}'|\d[\d_.]*\d|\d|[a-z][\w-]*(?![\w.]))|)"
)
"""A command in backticks, a hint at ``--help``, ``--no-flag``, and ``--flag`` with the next
word."""

CHOICES = frozenset(
    (
        *("auto", "none", "finite-difference", "mujoco", "model", "cpu", "cuda", "sync", "async"),
        *("stop", "drop", "restart", "pathwise", "score_function", "mixed", "critic"),
        *("gaussian", "clipped_gaussian", "clipped_tanh", "full_gaussian", "mixture", "beta"),
        *("wandb", "trackio", "mlflow"),
        *("flow", "always", "never", "windows", "episodes", "return", "reward_to_go", "value"),
    )
)
"""Values of settings that messages name behind a flag; every other word goes on with the
sentence."""

SWITCHES = frozenset({"trust", "stochastic", "capture_video"})
"""Flags without a value, which are off by default."""


def in_python(text: str) -> str:
    """The text with every flag as the keyword argument of the same setting.

    ``--num-envs`` becomes ``num_envs``, ``--device cpu`` becomes ``device='cpu'``, and
    ``--no-normalize-rewards`` becomes ``normalize_rewards=False``. Commands in backticks are for a
    terminal and stay.
    """
    return SPOKEN.sub(_keyword, text)


def _keyword(match: re.Match[str]) -> str:
    if match["command"]:
        return match["command"]
    if match["help"]:
        return ""
    if match["no"]:
        return f"{match['off'].replace('-', '_')}=False"
    name, value = match["flag"].replace("-", "_"), match["value"].strip()
    if name in SWITCHES:
        return f"{name}=True{match['value']}"
    literal = _literal(value)
    return f"{name}{match['value']}" if literal is None else f"{name}={literal}"


def _literal(word: str) -> str | None:
    """The word as a value in Python; None if it is no value."""
    if word in CHOICES:
        return repr(word)
    if word[:1].isdigit():
        return word
    if word.startswith("'{"):
        try:
            return repr(json.loads(word[1:-1]))
        except ValueError:  # an example with dots in it
            return word[1:-1]
    return None
