"""Settings: the range in each annotation, the message, and groups that combine."""

import ast
import contextlib
import dataclasses
import io
import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.agents.reinforce import ReinforceConfig
from pgtoolkit.agents.shac import ShacConfig
from pgtoolkit.config import (
    AdamSettings,
    PathwisePolicySettings,
    PathwiseSettings,
    PolicySettings,
    RelativeEntropySettings,
    RolloutSettings,
    Settings,
    ValueSettings,
    above,
    at_least,
    below,
    between,
    each,
    ranges,
)
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.experiment import RunConfig
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent
from pgtoolkit.training.loop import TrainConfig

CONFIGS = (ReinforceConfig, ApgConfig, ShacConfig, PpoConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base(Settings):
    """One setting for each kind of range."""

    count: Annotated[int, at_least(2, "one is no sample")] = 2
    """Number of samples."""
    step_size: Annotated[float, above(0)] = 0.5
    """Length of a step."""
    share: Annotated[float, between(0, 1)] = 0.5
    """Share that is kept."""
    decay: Annotated[float, below(0, 1)] = 0.5
    """Decay rate."""
    betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.5, 0.5)
    """Two decay rates."""
    sizes: Annotated[tuple[int, ...], each(at_least(1), "sizes of at least 1")] = (3,)
    """Sizes of layers."""
    limit: Annotated[int | None, at_least(1)] = None
    """Largest number of steps; None means no limit."""
    free: float = 0.0
    """A number without a range."""
    kind: Literal["one", "other"] = "one"
    """A word."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stricter(Base):
    """A subclass that narrows the range of ``count`` and gives up that of ``share``."""

    count: Annotated[int, at_least(5)] = 5
    """Number of samples."""
    share: float = 7.0
    """A share without a range."""


@pytest.mark.parametrize(
    ("name", "good", "bad", "message"),
    [
        ("count", (2, 3), 1, "count must be at least 2: one is no sample, not 1"),
        ("step_size", (1e-9, 5.0), 0.0, "step_size must be above 0, not 0.0"),
        ("step_size", (), -1.0, "step_size must be above 0, not -1.0"),
        ("share", (0.0, 1.0), 1.01, "share must be between 0 and 1, not 1.01"),
        ("share", (), -0.01, "share must be between 0 and 1, not -0.01"),
        ("decay", (0.0, 0.999), 1.0, "decay must be in [0, 1), not 1.0"),
        ("decay", (), -0.1, "decay must be in [0, 1), not -0.1"),
        ("betas", ((0.0, 0.9),), (0.5, 1.0), "betas must be in [0, 1), not (0.5, 1.0)"),
        ("sizes", ((), (1, 2)), (4, 0), "sizes must be sizes of at least 1, not (4, 0)"),
        ("limit", (None, 1), 0, "limit must be at least 1, not 0"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_its_name(
    name: str, good: tuple[Any, ...], bad: Any, message: str
) -> None:
    """The end points of each range are tested, and the error's whole message is compared."""
    for value in good:
        assert getattr(Base(**{name: value}), name) == value
    with pytest.raises(RequestError) as caught:
        Base(**{name: bad})
    assert str(caught.value) == message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["step_size", "share", "free"])
def test_a_number_that_is_not_finite_is_refused_with_or_without_a_range(
    name: str, bad: float
) -> None:
    """Infinity is above 0, so the range alone would let it pass."""
    given: dict[str, Any] = {name: bad}
    with pytest.raises(RequestError, match="must be a finite number") as caught:
        Base(**given)
    assert str(caught.value).startswith(f"{name} ")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["betas", "sizes"])
def test_a_tuple_with_an_entry_that_is_not_finite_is_refused(name: str, bad: float) -> None:
    """An infinite layer is at least 1, so the range alone would let it pass."""
    given: dict[str, Any] = {name: (0.5, bad)}
    with pytest.raises(RequestError, match=f"^{name} must be a finite number"):
        Base(**given)


def test_the_ranges_of_a_class_are_those_of_its_own_annotations() -> None:
    """A subclass that annotates a field again replaces its range, or drops it; others stay."""
    assert "count" in dict(ranges(Stricter)) and "share" not in dict(ranges(Stricter))
    assert dict(ranges(Stricter))["decay"].text == "in [0, 1)"
    Base(count=4)
    with pytest.raises(RequestError, match="count must be at least 5, not 4"):
        Stricter(count=4)
    assert Stricter().share == 7.0
    with pytest.raises(RequestError, match=r"^decay"):
        Stricter(decay=1.0)


def test_groups_combine_their_fields_and_their_checks() -> None:
    """A configuration of three groups has the fields of all and is checked by all."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Combined(RolloutSettings, AdamSettings, ValueSettings):
        pass

    names = {field.name for field in dataclasses.fields(Combined)}
    assert {"num_envs", "learning_rate", "vf_epochs"} <= names
    bad: dict[str, Any] = {"num_envs": 0, "learning_rate": 0.0, "vf_epochs": 0}
    for name, value in bad.items():
        with pytest.raises(RequestError, match=f"^{name} must be"):
            Combined(**{name: value})


def test_a_group_may_replace_a_default_of_the_group_that_it_extends() -> None:
    """Pathwise agents have another weight of the relative entropy, wherever the group stands."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class PathwiseLast(RolloutSettings, PolicySettings, PathwiseSettings):
        pass

    assert RelativeEntropySettings().ent_coef_relative == 0.0
    assert PathwiseSettings().ent_coef_relative == 0.015
    for config in (ApgConfig(), ShacConfig(), PathwiseLast()):
        assert config.ent_coef_relative == 0.015
    assert ReinforceConfig().ent_coef_relative == 0.0


@pytest.mark.parametrize("name", ["apg", "shac", "sapo", "ahac", "rpo"])
def test_agents_that_differentiate_a_path_share_the_settings_of_their_network(name: str) -> None:
    """Those of the group of pathwise networks; ``sapo`` has another activation."""
    given, shared, plain = load_agent(name)[1](), PathwisePolicySettings(), PolicySettings()
    for field, value in (("layer_norm", True), ("first_bias", 0.3), ("log_std_init", -0.5)):
        assert getattr(given, field) == getattr(shared, field) == value != getattr(plain, field)
    assert given.activation == ("silu" if name == "sapo" else shared.activation)


def test_ppo_has_no_relative_entropy() -> None:
    """PPO's loss takes ``ent_coef`` alone, so a relative weight would do nothing."""
    assert "ent_coef_relative" not in {field.name for field in dataclasses.fields(PpoConfig)}
    with pytest.raises(RequestError, match="ent-coef-relative"):
        parse(PpoConfig, ["--ent-coef-relative", "0.1"], command="train ppo")
    assert parse(ApgConfig, ["--ent-coef-relative", "0.1"], command="train apg") == ApgConfig(
        ent_coef_relative=0.1
    )


@pytest.mark.parametrize("config", [*CONFIGS, TrainConfig])
def test_every_configuration_is_made_from_its_defaults_and_cannot_be_changed(config: Any) -> None:
    made = config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.gamma = 0.5
    assert parse(config, [], command="train") == made


@pytest.mark.parametrize("config", CONFIGS)
def test_most_settings_of_agents_state_a_range(config: Any) -> None:
    """Every number does but two: an initial log std, and none other, may be anything finite."""
    free = {
        field.name
        for field in dataclasses.fields(config)
        if field.type in (int, float) and field.name not in dict(ranges(config))
    }
    assert free == {"log_std_init"}


def test_the_command_line_parses_settings_with_ranges() -> None:
    """Single numbers, tuples and None, each by its flag."""
    flags = ["--count", "7", "--share", "0.25", "--betas", "0.1", "0.2", "--sizes", "8", "9"]
    found = parse(Base, [*flags, "--limit", "3", "--kind", "other"], command="train")
    assert found == Base(count=7, share=0.25, betas=(0.1, 0.2), sizes=(8, 9), limit=3, kind="other")
    assert parse(Base, ["--limit", "None"], command="train").limit is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share", "2"], "--share must be between 0 and 1, not 2.0"),
        (["--betas", "0.5", "1"], r"--betas must be in \[0, 1\), not \(0.5, 1.0\)"),
        (["--step-size", "inf"], "--step-size must be a finite number, not inf"),
        (["--limit", "0"], "--limit must be at least 1, not 0"),
    ],
)
def test_the_command_line_reports_a_range_on_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        parse(Base, arguments, command="train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("config", [Base, *CONFIGS, TrainConfig])
def test_the_help_of_a_command_has_every_flag_and_its_text(config: Any) -> None:
    """The range in an annotation neither hides the field's docstring nor appears as code."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as caught:
        parse(config, ["--help"], command="train")
    assert caught.value.code == 0
    text = " ".join(output.getvalue().replace("│", " ").split())
    for field in dataclasses.fields(config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "Range(" not in text and "<lambda>" not in text
    sentences = {
        Base: ("Length of a step.", "Sizes of layers.", "None means no limit."),
        TrainConfig: ("Environment steps to train for",),
    }.get(config, ("Discount factor.", "Decay rates of Adam's two moments.", "Global norm"))
    for sentence in sentences:
        assert sentence in text


@pytest.mark.parametrize("name", ["step_size", "free", "sizes"])
def test_none_is_refused_where_the_annotation_has_none(name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name} must be given, not None"):
        Base(**{name: None})  # type: ignore[arg-type]
    assert Base(limit=None).limit is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"free": -1e308}, "free must be at most 1e\\+38 in size"),
        ({"sizes": (10**16,)}, "sizes must be at most 1,000,000,000,000,000"),
        ({"count": 10**16}, "count must be at most 1,000,000,000,000,000"),
    ],
)
def test_a_number_that_no_tensor_holds_is_refused(settings: dict[str, Any], message: str) -> None:
    """Also where the annotation states no range."""
    with pytest.raises(RequestError, match=message):
        Base(**settings)


def test_every_whole_number_of_every_agent_has_an_upper_bound() -> None:
    """Of agents that come later, too: they are in the command line's table."""
    kinds = (TrainConfig, RunConfig, *(load_agent(name)[1] for name in AGENTS))
    for kind in kinds:
        given = {"env": "X"} if kind is RunConfig else {}
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if hints[field.name] in (int, int | None):
                with pytest.raises(RequestError, match="must be at most"):
                    kind(**given, **{field.name: 10**18})


def test_every_class_with_ranges_checks_them() -> None:
    """Only :class:`Settings` reads them; on a class that is none they would be words."""
    folders = (
        Path(__file__).parents[1] / name for name in ("pgtoolkit", "agents", "envs", "scripts")
    )
    trees = [ast.parse(path.read_text()) for folder in folders for path in folder.rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    words = ("above(", "at_least(", "at_most(", "below(", "between(")
    ranged = {
        one.name: [ast.unparse(base) for base in one.bases]
        for one in classes
        for field in one.body
        if isinstance(field, ast.AnnAssign)
        and any(word in ast.unparse(field.annotation) for word in words)
    }
    assert len(ranged) > 20
    assert [name for name, bases in ranged.items() if not bases] == []
