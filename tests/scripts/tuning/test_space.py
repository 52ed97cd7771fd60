"""Settings to search: ranges from annotations and from the user, and what is refused."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import optuna
import pytest

from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.config import (
    Settings,
    above,
    at_least,
    at_most,
    below,
    between,
    typical_ranges,
)
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent
from pgtoolkit.scripts.tuning.space import (
    SEARCHED,
    Choice,
    Dimension,
    Interval,
    bounds,
    default_dimension,
    parse_dimension,
    searched_settings,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Some(Settings):
    """One setting of each kind."""

    rate: Annotated[float, above(0)] = 0.003
    """Positive."""
    discount: Annotated[float, between(0, 1)] = 0.99
    """Near its upper bound."""
    keep: Annotated[float, below(0, 1)] = 0.2
    """Between two bounds."""
    size: Annotated[int, at_least(2), at_most(100)] = 32
    """Whole."""
    weight: Annotated[float, at_least(0)] = 0.0
    """At its bound, so without a scale."""
    free: float = 1.0
    """Without bounds."""
    word: Literal["one", "other"] = "one"
    """A word."""
    switch: bool = False
    """A boolean."""
    layers: tuple[int, ...] = (8, 8)
    """Several numbers."""
    text: str = "auto"
    """Text."""


def text_of(name: str) -> str:
    return default_dimension(Some(), name).text


def parsed(text: str) -> Dimension:
    return parse_dimension("some", Some(), text)


def test_ranges_come_from_annotation_and_default() -> None:
    """Worked by hand: a tenth to ten times of the distance from the nearer bound."""
    assert text_of("rate") == "rate=0.0003..0.03:log"
    assert text_of("discount") == "discount=0.9..0.999:log"
    assert text_of("keep") == "keep=0.02..0.5:log"
    assert text_of("size") == "size=8..100:log"
    assert text_of("word") == "word=one,other"
    assert text_of("switch") == "switch=false,true"


@pytest.mark.parametrize("name", ["weight", "free", "layers", "text"])
def test_a_setting_without_a_range_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"gives it a range: write --tune {name}=LOW..HIGH"):
        default_dimension(Some(), name)


def test_typical_values_in_an_annotation_are_the_range() -> None:
    """A factor of ten of the default would reach to where nothing is clipped."""
    texts = [default_dimension(PpoConfig(), name).text for name in ("clip_range", "gae_lambda")]
    assert texts == ["clip_range=0.05..0.4:log", "gae_lambda=0.8..0.995:log"]
    for agent in SEARCHED:
        config: Any = load_agent(agent)[1]
        for name, typical in typical_ranges(config).items():
            for value in (typical.low, typical.high):
                assert dataclasses.replace(config(), **{name: value})


def test_bounds_are_those_of_the_annotation() -> None:
    assert bounds(Some(), "size") == (2, 100)
    assert bounds(Some(), "rate") == (0, None)
    assert bounds(Some(), "free") == (None, None)


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("rate=1e-3..2e-3", "log"),  # positive and without an upper bound
        ("discount=0.9..0.999", "log_below"),
        ("discount=0.9..1", "linear"),
        ("discount=0.9..0.999:linear", "linear"),
        ("keep=0.01..0.5", "log"),
        ("keep=0.2..0.4", "linear"),
        ("free=-1..1", "linear"),
        ("free=1..20", "log"),
        ("size=8..16", "linear"),
        ("size=8..16:log", "log"),
        ("size=4..64", "log"),
    ],
)
def test_a_range_is_searched_on_the_scale_that_fits_it(text: str, scale: str) -> None:
    found = parsed(text)
    assert isinstance(found, Interval) and found.scale == scale


def test_values_to_choose_from_are_read_as_yaml() -> None:
    assert parsed("layers=[4],[8, 8]") == Choice("layers", ((4,), (8, 8)))
    assert parsed("rate=1e-3,0.1") == Choice("rate", (0.001, 0.1))
    assert parsed("text=auto,0.1") == Choice("text", ("auto", "0.1"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rat", "did you mean rate"),
        ("env=a,b", "has no such setting"),
        ("rate=2..1", "is empty"),
        ("rate=1..1", "is empty"),
        ("rate=1", "leaves nothing to choose"),
        ("rate=", "leaves nothing to choose"),
        ("rate=a..b", "'a' is no number"),
        ("rate=0.1..inf", "'inf' is no number"),
        ("rate=0..1", "--rate must be above 0"),
        ("discount=0.5..2", "--discount must be between 0 and 1"),
        ("size=2.5..4", "it is a whole number"),
        ("size=2..1000", "--size must be at most 100"),
        ("word=one,two", "--word must be one or other"),
        ("layers=1..2", "it is no number"),
        ("layers=[1", "cannot be read"),
        ("free=-1..1:log", "has no logarithm"),
        ("free=1..2:cubic", "log or linear"),
    ],
)
def test_a_wrong_range_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parsed(text)
    assert words in caught.value.with_flags


@pytest.mark.parametrize(
    ("texts", "given", "words"),
    [
        (["gamma"], ["gamma"], "--gamma has a value and a range"),
        (["gamma", "gamma=0.5,0.9"], [], "gamma twice"),
        ([], SEARCHED["apg"], "every setting that is searched by default has a value"),
    ],
)
def test_a_setting_has_a_value_or_one_range(texts: Any, given: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        searched_settings("apg", load_agent("apg")[1](), texts, given)


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_has_settings_to_search_with_its_defaults_inside(agent: str) -> None:
    """So the first trial of a study has the defaults; and the agent takes both ends of each."""
    config = load_agent(agent)[1]()
    space = searched_settings(agent, config, (), ())
    assert [each.name for each in space] == list(SEARCHED[agent]) and len(space) >= 4
    for each in space:
        assert isinstance(each, Interval) and each.contains(getattr(config, each.name))
        for end in (each.low, each.high):
            value = int(end) if each.whole else end
            assert getattr(dataclasses.replace(config, **{each.name: value}), each.name) == value


def test_a_value_that_is_given_is_not_searched() -> None:
    space = searched_settings("apg", load_agent("apg")[1](), (), {"gamma"})
    assert "gamma" not in [each.name for each in space]


@pytest.mark.parametrize("text", ["rate=1e-4..1e-2", "discount=0.9..0.999", "free=-1..2"])
def test_a_number_is_in_its_range_and_short_and_is_what_the_study_keeps(text: str) -> None:
    """500 draws: four significant digits, of the distance from the bound where it is searched."""
    dimension = parsed(text)
    assert isinstance(dimension, Interval)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = []
    for _ in range(500):
        trial = study.ask()
        value = dimension.suggest(trial)
        values.append(value)
        assert dimension.low <= value <= dimension.high
        assert dimension.value_of(trial.params[dimension.parameter]) == value
        distance = dimension.bound - value if dimension.scale == "log_below" else value
        assert math.isclose(float(f"{distance:.4g}"), distance, rel_tol=1e-9)
    assert len(set(values)) > 400


def test_a_default_is_kept_to_the_digit() -> None:
    """Trial 0 has 0.99, not 1 - 0.01 with rounding."""
    for name in ("rate", "discount", "keep"):
        found = default_dimension(Some(), name)
        assert isinstance(found, Interval)
        default = getattr(Some(), name)
        assert found.value_of(found.stored(default)) == default


def test_by_factors_of_the_distance_from_one() -> None:
    """Half of the draws of 0.9..0.999 lie above 0.99, where a linear scale has a tenth.

    2,000 draws: the standard error of the share is 0.0112, five of which are allowed.
    """
    dimension = parsed("discount=0.9..0.999")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    draws = [dimension.suggest(study.ask()) for _ in range(2000)]
    assert abs(sum(value > 0.99 for value in draws) / 2000 - 0.5) < 5 * 0.0112
