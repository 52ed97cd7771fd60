"""Settings to search and the range of each: from the annotation of a setting, or from the user."""

import dataclasses
import json
import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal, final, get_args, get_origin

import yaml

from pgtoolkit.config import Settings, ranges, typical_ranges
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import flag_name
from pgtoolkit.scripts.cli.formatting import join_names
from pgtoolkit.scripts.cli.own_agents import short_name
from pgtoolkit.scripts.cli.suggestions import did_you_mean
from pgtoolkit.scripts.comparison.variants import split_outside_brackets
from pgtoolkit.setting_types import types_of

if TYPE_CHECKING:
    import optuna

Scale = Literal["linear", "log", "log_below"]
"""linear: every value alike. log: every factor alike. log_below: every factor of the distance from
the setting's upper bound alike, such as 1 - gamma."""

FACTOR, WHOLE_FACTOR = 10.0, 4
"""How far a range reaches from the default, in both directions, where the annotation alone does not
say: of numbers, and of whole numbers, which mostly cost time in proportion."""

LOG_FROM = 10.0
"""Ratio of a range's ends from which it is searched by factors."""

DIGITS = 4
"""Significant digits of a number that is searched."""

SEARCHED = {
    "reinforce": ("learning_rate", "vf_learning_rate", "gamma", "gae_lambda", "n_steps"),
    "ppo": ("learning_rate", "gamma", "gae_lambda", "clip_range", "n_epochs", "batch_size"),
    "a2c": ("learning_rate", "gamma", "gae_lambda", "n_steps", "vf_coef"),
    "npg": ("target_kl", "gamma", "gae_lambda", "vf_learning_rate", "n_steps"),
    "trpo": ("target_kl", "gamma", "gae_lambda", "vf_learning_rate", "n_steps"),
    "reppo": ("learning_rate", "critic_learning_rate", "gamma", "gae_lambda", "ent_coef"),
    "sac": ("learning_rate", "gamma", "tau", "batch_size"),
    "td3": ("learning_rate", "gamma", "tau", "action_noise"),
    "apg": ("learning_rate", "gamma", "n_steps", "ent_coef_relative"),
    "shac": ("learning_rate", "vf_learning_rate", "gamma", "gae_lambda", "ent_coef_relative"),
    "sapo": ("learning_rate", "vf_learning_rate", "gamma", "gae_lambda", "ent_coef_relative"),
    "ahac": ("learning_rate", "vf_learning_rate", "gamma", "gae_lambda", "amplification_bound"),
    "rpo": ("learning_rate", "vf_learning_rate", "gamma", "n_epochs", "kl_coef_relative"),
    "svg": ("learning_rate", "q_learning_rate", "gamma", "tau", "ent_coef_relative"),
}
"""The settings of each agent that are searched where ``--tune`` names none."""


@final
@dataclasses.dataclass(frozen=True)
class Interval:
    """A number between two ends, both included."""

    name: str
    low: float
    high: float
    scale: Scale
    whole: bool
    bound: float = 0.0
    """The upper bound of the setting, for the scale ``log_below``."""

    @property
    def parameter(self) -> str:
        """What the study calls it: for the scale ``log_below`` the distance from the bound."""
        return f"{self.bound:g} - {self.name}" if self.scale == "log_below" else self.name

    @property
    def text(self) -> str:
        """The range as ``--tune`` takes it."""
        scale = "linear" if self.scale == "linear" else "log"
        return f"{self.name}={self.low:g}..{self.high:g}:{scale}"

    def contains(self, value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def suggest(self, trial: "optuna.Trial") -> Any:
        """The value in a trial, to ``DIGITS`` significant digits."""
        log = self.scale != "linear"
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=log)
        low, high = (self.stored(end) for end in (self.low, self.high))
        found = trial.suggest_float(self.parameter, min(low, high), max(low, high), log=log)
        return self.value_of(found)

    def stored(self, value: Any) -> Any:
        """The number that the study keeps for a value."""
        return _rounded(self.bound - value, 12) if self.scale == "log_below" else value

    def value_of(self, stored: float) -> float:
        """The value for a number that the study has kept."""
        if self.scale == "log_below":
            value = _rounded(self.bound - _rounded(stored, DIGITS), 12)
        else:
            value = _rounded(stored, DIGITS)
        return min(max(value, self.low), self.high)


@final
@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values."""

    name: str
    values: tuple[Any, ...]

    @property
    def parameter(self) -> str:
        return self.name

    @property
    def text(self) -> str:
        return f"{self.name}={','.join(map(self.stored, self.values))}"

    def contains(self, value: Any) -> bool:
        return self.stored(value) in [self.stored(each) for each in self.values]

    def suggest(self, trial: "optuna.Trial") -> Any:
        by_text = {self.stored(value): value for value in self.values}
        return by_text[trial.suggest_categorical(self.name, list(by_text))]

    def stored(self, value: Any) -> str:
        """The text that the study keeps for a value."""
        plain = list(value) if isinstance(value, tuple) else value
        return plain if isinstance(plain, str) else json.dumps(plain)


Dimension = Interval | Choice


def searched_settings(
    agent_name: str, config: Settings, texts: Sequence[str], given: Collection[str]
) -> list[Dimension]:
    """The settings to search.

    Args:
        agent_name: the agent.
        config: its settings without those that are searched.
        texts: ``NAME``, ``NAME=LOW..HIGH``, ``NAME=LOW..HIGH:log`` (or ``linear``) or
            ``NAME=A,B,C``; none for those of :data:`SEARCHED`, which has no agents of the user's.
        given: names of the settings to which the command line gives a value.

    Raises:
        RequestError: the agent has no such setting, a range is empty, outside the setting's own, or
            missing, a setting has a value and a range, or it is not known what to search.
    """
    if not texts and agent_name not in SEARCHED:
        raise RequestError(
            f"say which settings of {short_name(agent_name)} are to be searched, such as --tune "
            "learning_rate: only those of this package's agents are known"
        )
    if not texts:
        names = [name for name in SEARCHED[agent_name] if name not in given]
        if not names:
            raise RequestError(
                "every setting that is searched by default has a value here: name others with "
                "--tune NAME=LOW..HIGH"
            )
        return [default_dimension(config, name) for name in names]
    found = [parse_dimension(agent_name, config, text) for text in texts]
    names = [dimension.name for dimension in found]
    for name in names:
        if name in given:
            raise RequestError(
                f"{flag_name(name)} has a value and a range in --tune: leave one of them out"
            )
        if names.count(name) > 1:
            raise RequestError(f"--tune has {name} twice: leave one of them out")
    return found


def parse_dimension(agent_name: str, config: Settings, text: str) -> Dimension:
    """A setting with its range, from one word of ``--tune``.

    Raises:
        RequestError: see :func:`searched_settings`.
    """
    name, equals, rest = text.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    require_setting(agent_name, config, name)
    if not equals:
        return default_dimension(config, name)
    if ".." in rest:
        return _require_in_annotation(config, _parse_interval(config, name, rest), text)
    is_text = _types(config)[name] is str
    parts = [part.strip() for part in split_outside_brackets(rest) if part.strip()]
    values = parts if is_text else [_parse_value(part, text) for part in parts]
    plain = tuple(tuple(value) if isinstance(value, list) else value for value in values)
    choice = Choice(name, plain)
    if len({choice.stored(value) for value in plain}) < 2:
        raise RequestError(
            f"--tune {text} leaves nothing to choose: name a range {name}=LOW..HIGH or several "
            f"values {name}=A,B, or give {flag_name(name)} a value outside --tune"
        )
    return _require_in_annotation(config, choice, text)


def require_setting(agent_name: str, config: Settings, name: str) -> None:
    """Raises unless the agent has a setting of this name.

    Raises:
        RequestError: names those that can be searched, and the closest one.
    """
    names = [field.name for field in dataclasses.fields(config)]
    if name in names:
        return
    hint = did_you_mean(name, names)
    raise RequestError(
        f"--tune {name!r}: {agent_name} has no such setting. {hint}Only settings of the agent can "
        f"be searched: {join_names(names)}"
    )


def default_dimension(config: Settings, name: str) -> Dimension:
    """A setting with the range that its annotation and its default give.

    - A word or a boolean: all that the annotation allows.
    - A number with typical values in its annotation, such as ``clip_range``: those.
    - A number above a bound, such as a learning rate: the default's distance from the bound, from a
      tenth to ten times of it, by factors.
    - A number between two bounds, such as ``gamma``: the same of the distance from the nearer one,
      up to the middle.
    - A whole number: from a quarter of the default to four times of it.

    Raises:
        RequestError: the annotation and the default give no range.
    """
    default = default_of(config, name)
    kind = _types(config)[name]
    if kind is bool:
        return Choice(name, (False, True))
    if get_origin(kind) is Literal:
        return Choice(name, get_args(kind))
    if typical := typical_ranges(_kind(config)).get(name):
        interval = Interval(name, typical.low, typical.high, "linear", whole=kind is int)
        return _with_scale(config, interval, "")
    low, high = bounds(config, name)
    found: Interval | None = None
    if kind is int and isinstance(default, int) and default >= 1:
        found = _whole_interval(name, default, low, high)
    elif kind is float and low is not None:
        found = _interval(name, float(default), low, high)
    if found is None or found.low >= found.high:
        raise RequestError(
            f"--tune {name}: neither its annotation nor its default, {default}, gives it a "
            f"range: write --tune {name}=LOW..HIGH, or values to choose from, {name}=A,B"
        )
    return found


def bounds(config: Settings, name: str) -> tuple[float | None, float | None]:
    """The greatest lower and the least upper bound that a setting's annotation states."""
    found = [range_ for field, range_ in ranges(_kind(config)) if field == name]
    lows = [range_.low for range_ in found if range_.low is not None]
    highs = [range_.high for range_ in found if range_.high is not None]
    return max(lows, default=None), min(highs, default=None)


def _kind(config: Settings) -> Any:
    """The class; the caches of its annotations take any hashable value."""
    return type(config)


def _types(config: Settings) -> dict[str, Any]:
    return types_of(_kind(config))


def default_of(config: Settings, name: str) -> Any:
    """The default of a setting."""
    return next(field.default for field in dataclasses.fields(config) if field.name == name)


def _whole_interval(name: str, default: int, low: float | None, high: float | None) -> Interval:
    least = max(1, default // WHOLE_FACTOR, math.ceil(low or 1))
    greatest = min(default * WHOLE_FACTOR, math.inf if high is None else high)
    return Interval(name, least, greatest, "log", whole=True)


def _interval(name: str, default: float, low: float, high: float | None) -> Interval:
    """The default's distance from its nearer bound, from a tenth to ten times of it."""
    below = high is not None and high - default < default - low
    bound = high if high is not None and below else low
    distance = abs(default - bound)
    farthest = distance * FACTOR
    if high is not None:
        farthest = min(farthest, (high - low) / 2)
    near, far = (_rounded(d, DIGITS) for d in (distance / FACTOR, farthest))
    if below:
        least, greatest = (_rounded(bound - d, 12) for d in (far, near))
        return Interval(name, least, greatest, "log_below", whole=False, bound=bound)
    return Interval(name, low + near, low + far, "log" if low == 0 else "linear", whole=False)


def _parse_interval(config: Settings, name: str, rest: str) -> Interval:
    """The interval of ``LOW..HIGH`` or ``LOW..HIGH:log``."""
    ends, colon, scale = rest.partition(":")
    low, _, high = ends.partition("..")
    kind = _types(config)[name]
    numbers = [_parse_number(end, name) for end in (low, high)]
    if kind not in (int, float):
        raise RequestError(
            f"--tune {name}: it is no number: write the values to choose from, {name}=A,B"
        )
    if kind is int and any(number != int(number) for number in numbers):
        raise RequestError(f"--tune {name}={rest}: it is a whole number, so its ends must be, too")
    if numbers[0] >= numbers[1]:
        raise RequestError(
            f"--tune {name}={rest} is empty: write the lower end first, {name}=LOW..HIGH"
        )
    if colon and scale not in ("log", "linear"):
        raise RequestError(
            f"--tune {name}={rest}: the scale after the colon must be log or linear, not {scale!r}"
        )
    interval = Interval(name, numbers[0], numbers[1], "linear", whole=kind is int)
    return _with_scale(config, interval, scale)


def _with_scale(config: Settings, interval: Interval, wanted: str) -> Interval:
    """The interval with the scale that is wanted, or else with that which fits it.

    By factors are searched ranges whose ends have a ratio of ten or more, and, of numbers with an
    upper bound, whose distances from it have; and every range of a positive setting without an
    upper bound, such as a learning rate.
    """
    low, high = interval.low, interval.high
    least, greatest = bounds(config, interval.name)
    positive = least == 0 and greatest is None and not interval.whole
    has_bound = greatest is not None and high < greatest and not interval.whole
    if wanted == "linear":
        return interval
    if greatest is not None and has_bound:
        ratio = (greatest - low) / (greatest - high)
        if (low <= 0 or ratio > high / low) and (ratio >= LOG_FROM or wanted == "log"):
            return dataclasses.replace(interval, scale="log_below", bound=greatest)
    if low > 0 and (wanted == "log" or positive or high / low >= LOG_FROM):
        return dataclasses.replace(interval, scale="log")
    if wanted == "log":
        raise RequestError(
            f"--tune {interval.name}={low:g}..{high:g}:log has no logarithm at its lower end: "
            "write one above 0, or :linear"
        )
    return interval


def _require_in_annotation(config: Settings, dimension: Dimension, text: str) -> Dimension:
    """The setting, if the agent takes each end of its range or each of its values.

    Raises:
        RequestError: the agent refuses one.
    """
    if isinstance(dimension, Interval):
        values = [int(v) if dimension.whole else v for v in (dimension.low, dimension.high)]
    else:
        values = list(dimension.values)
    for value in values:
        try:
            dataclasses.replace(config, **{dimension.name: value})
        except RequestError as error:
            raise RequestError(f"--tune {text}: {error.with_flags}") from error
    return dimension


def _parse_value(part: str, text: str) -> Any:
    """A value, read as YAML, such as ``tanh``, ``0.5`` or ``[64, 64]``."""
    try:
        value = yaml.safe_load(part)
    except yaml.YAMLError as error:
        raise RequestError(
            f"--tune {text}: {part!r} cannot be read: write a number, a word or a list such as "
            "[64, 64]"
        ) from error
    try:
        return float(value) if isinstance(value, str) else value  # 1e-3, which YAML takes for text
    except ValueError:
        return value


def _parse_number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestError(
            f"--tune {name}: {text!r} is no number: write {name}=LOW..HIGH, such as "
            "learning_rate=1e-4..1e-2"
        )
    return value


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
