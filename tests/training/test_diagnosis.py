"""The diagnosis: every kind of finding is provoked, and healthy runs give none.

Most runs here are made up of scalars: an update has 1000 steps, every tenth is measured and every
twentieth evaluated.
"""

import dataclasses
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.agents.svg import SvgConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.control.pusher import PusherFriction
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.formatting import FLAG
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent
from pgtoolkit.training.alarms import RULES
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint
from pgtoolkit.training.diagnosis import (
    Diagnosis,
    Finding,
    gradient_text,
    markdown,
    nothing_text,
    report_lines,
    short_text,
)
from pgtoolkit.training.history import History
from pgtoolkit.training.writer import as_floats

STEPS, MEASURED, EVALUATED = 1000, 10, 20
Row = Mapping[str, float]
Change = Row | Callable[[int], Row]


def healthy_update(update: int) -> dict[str, float]:
    """Scalars of an update of a run that learns."""
    return {
        "train/approx_kl": 0.01 + 0.005 * (update % 3),
        "train/clip_fraction": 0.1,
        "train/clipped_actions": 0.2,
        "train/explained_variance": 0.9,
        "train/gradient_clipped": float(update < 50),
        "train/saturated_actions": 0.1,
        "train/std": 1 / (1 + 0.02 * update),
        "rollout/ep_rew_mean": -1000.0 / (1 + 0.1 * update),
    }


HEALTHY_CRITIC = {
    "cosine": 0.9,
    "cosine_low": 0.8,
    "cosine_high": 0.95,
    "bias_z": 2.0,
    "bias_low": -0.1,
}


def healthy_measurement(followed: str = "pathwise") -> dict[str, float]:
    """Scalars of a measurement: variances 4 (mixed), 5 (pathwise) and 400."""
    variances = {"pathwise": 5.0, "score_function": 400.0}
    if followed in ("mixed", "critic"):
        variances[followed] = 4.0
    found = {
        "gradient/trajectories": 64.0,
        "gradient/bias": 0.1,
        "gradient/bias_low": -1.0,
        "gradient/bias_z": 0.8,
        "gradient/log10_detectable_bias": -2.0,
        "gradient/variance_ratio": 80.0,
        f"gradient/{followed}/followed": 1.0,
    }
    if followed == "critic":
        found |= {f"gradient/critic/{name}": x for name, x in HEALTHY_CRITIC.items()}
    for name, variance in variances.items():
        found |= {
            f"gradient/{name}/variance": variance,
            f"gradient/{name}/signal": 0.5,
            f"gradient/{name}/signal_z": 1.0 if name == "score_function" else 4.0,
            f"gradient/{name}/largest_share": 0.1,
        }
    return found


def run(
    change: Change | None = None,
    *,
    start: int = 0,
    stop: int = 10**9,
    followed: str = "pathwise",
) -> Callable[[int], dict[str, float]]:
    """A healthy run's scalars by update, some of them changed from ``start`` on and until ``stop``.

    A changed tag is there whenever its group is measured.
    """

    def row(update: int) -> dict[str, float]:
        found = healthy_update(update)
        found |= healthy_measurement(followed) if update % MEASURED == 0 else {}
        if update % EVALUATED == 0:
            found["eval/mean_reward"] = -1000.0 / (1 + update / 10)
        if change is None or not start <= update < stop:
            return found
        given = change(update) if callable(change) else change
        measured, evaluated = update % MEASURED == 0, update % EVALUATED == 0
        due = {"gradient": measured, "eval": evaluated}
        return found | {tag: x for tag, x in given.items() if due.get(tag.split("/")[0], True)}

    return row


def diagnose(
    row: Callable[[int], Row],
    updates: int = 200,
    diagnosis: Diagnosis | None = None,
    start: int = 0,
) -> Diagnosis:
    """The diagnosis of the updates from ``start`` to ``updates``."""
    diagnosis = diagnosis or Diagnosis()
    for update in range(start, updates):
        diagnosis.observe(row(update), STEPS * update)
    return diagnosis


# The critic ---------------------------------------------------------------------------------------

AWAY = dict[str, float](
    **{"gradient/critic/cosine": 0.2, "gradient/critic/cosine_low": 0.1},
    **{"gradient/critic/cosine_high": 0.31, "gradient/critic/bias_z": 12.0},
    **{"gradient/critic/bias_low": 0.5},
)


@pytest.mark.parametrize(
    ("followed", "change", "found"),
    [
        ("critic", {}, True),
        ("score_function", {}, False),  # the critic's bias does not reach what is followed
        ("critic", {"gradient/critic/cosine_high": 0.7}, False),  # perhaps it is no more than 45°
        ("critic", {"gradient/critic/bias_low": -0.1}, False),  # perhaps there is no bias
        ("critic", {"gradient/bias_z": 9.0, "gradient/bias_low": 0.1}, False),  # of the exact one
    ],
)
def test_a_critic_that_surely_points_away_is_found_where_it_is_followed(
    followed: str, change: Row, found: bool
) -> None:
    diagnosis = diagnose(run({**AWAY, **change}, followed=followed))
    assert ("critic_bias" in diagnosis.kinds) == found


def test_a_mix_with_the_critic_follows_its_bias_and_one_with_pathwise_does_not() -> None:
    """There, pathwise is measured beside the mix."""
    row = run(AWAY, followed="mixed")
    without = ("gradient/pathwise/", "gradient/bias", "gradient/variance_ratio")
    by_critic = diagnose(
        lambda update: {t: x for t, x in row(update).items() if not t.startswith(without)}
    )
    assert "critic_bias" in by_critic.kinds
    assert "critic_bias" not in diagnose(row).kinds


def test_the_closing_line_says_how_the_critic_lies_to_the_exact_gradient() -> None:
    assert "no bias of the critic's is seen at the end (highest z 2.0)" in gradient_text(
        diagnose(run(followed="critic"))
    )
    away = gradient_text(diagnose(run(AWAY, followed="critic")))
    assert "biased (z 12.0) and has a cosine of 0.20 (0.10 to 0.31) to the exact one" in away
    assert away.startswith("unreliable")


def test_samples_of_a_gradient_beside_a_critics_are_states() -> None:
    """A minibatch of an update is another number of them, so nothing is said of an update."""
    text = gradient_text(diagnose(run(followed="critic")))
    assert "states, as many as are measured, have an SNR of" in text
    assert "trajectories" not in text and "update" not in text


def test_the_gradient_of_a_learned_model_is_checked_by_the_models_error() -> None:
    """`check-env` knows the environment alone."""
    change = {"environment/model_error": 0.25, "gradient/bias_z": math.nan}
    text = gradient_text(diagnose(run(change)))
    assert "no bias is measured (the gradient is that of a learned model, whose relative" in text
    assert "environment/model_error, is 0.25)" in text
    assert "check-env" not in text


# Every kind ---------------------------------------------------------------------------------------

NEVER_LEARNS = {"eval/mean_reward": -1000.0, "rollout/ep_rew_mean": -1000.0}
UNSEEN = {"gradient/pathwise/signal_z": 0.3, "gradient/pathwise/signal": 0.01}
PROVOKED: dict[str, tuple[Change, float, tuple[str, ...]]] = {
    "variance": (
        {"gradient/pathwise/variance": 1.2e8, "gradient/score_function/variance": 1.1},
        1.2e8 / 1.1,
        ("1.2e8 beside the score function's 1.1", "1.1e8 times", "--estimator mixed", "--n-steps"),
    ),
    "bias": (
        {"gradient/bias_z": 9.1, "gradient/bias_low": 0.2, "gradient/bias": 0.25},
        9.1,
        ("z 9.1", "0.5 times", "--estimator mixed"),
    ),
    "critic_bias": (
        AWAY,
        0.2,
        ("0.20 (0.10 to 0.31, medians)", "fit the critic"),
    ),
    "below_best": (
        lambda update: {"eval/mean_reward": -60.0 if update == 100 else -80.0},
        -80.0,
        ("-80 after -60", "at step 100,000", "policy/best.safetensors"),
    ),
    "relies_on_noise": (
        lambda update: {
            "rollout/ep_rew_mean": 300.0,
            "eval/mean_reward": -50.0,
            "eval/standard_error": 5.0,
        },
        -50.0,
        ("300 with noise, -50 without", "stochastic actions"),
    ),
    "one_trajectory": (
        {"gradient/pathwise/largest_share": 0.98, "gradient/score_function/variance": 2.0},
        0.98,
        ("of 64", "98%", "--estimator mixed"),
    ),
    "noise": (
        UNSEEN | NEVER_LEARNS,
        0.3 * math.sqrt(5),
        ("z 0.7", "collect 7.8 times more trajectories", "64 now; --num-envs 500"),
    ),
    "kl": (
        lambda update: {"train/approx_kl": 3.2 if update % 10 == 0 else 0.01},
        3.2,
        ("3.2 nats", "median of 0.01", "--learning-rate"),
    ),
    "std": (
        {"train/std": 0.003} | NEVER_LEARNS,
        0.003,
        ("0.003 after 1 at the start", "--ent-coef"),
    ),
    "saturated_actions": (
        {"train/saturated_actions": 0.9},
        0.9,
        ("90%", "--ent-coef-relative"),
    ),
    "clipped_actions": ({"train/clipped_actions": 0.9}, 0.9, ("90%", "--distribution gaussian")),
    "value_function": (
        {"train/explained_variance": -0.02} | NEVER_LEARNS,
        -0.02,
        ("-0.02", "--vf-learning-rate"),
    ),
    "gradient_clipped": (
        {"train/gradient_clipped": 1.0} | UNSEEN | NEVER_LEARNS,
        1.0,
        ("100% of the last 50 updates", "--num-envs"),
    ),
    "clip_fraction": ({"train/clip_fraction": 0.6}, 0.6, ("60%", "--learning-rate")),
}
"""By kind: the scalars that provoke it, its number, and what its sentence says."""
FOLLOWED = {"critic_bias": "critic"}
"""By kind the estimator that is followed, where it is not pathwise."""


def test_there_is_a_provocation_of_every_kind() -> None:
    assert list(PROVOKED) == [rule.kind for rule in RULES]


@pytest.mark.parametrize("kind", PROVOKED)
def test_a_condition_that_lasts_is_found_since_it_began(kind: str) -> None:
    """It begins at update 100; runs that never learn are so from the start."""
    change, number, words = PROVOKED[kind]
    learns = callable(change) or "eval/mean_reward" not in change
    followed = FOLLOWED.get(kind, "pathwise")
    row = run(change, start=100, followed=followed)
    row = row if learns else run_that_never_learns(change, 100)
    found = {finding.kind: finding for finding in diagnose(row).findings}
    finding = found[kind]
    assert finding.number == pytest.approx(number, rel=1e-9)
    assert [word for word in words if word not in finding.sentence] == []
    # The z of five measurements together falls below its limit with the fifth bad one, and the
    # first evaluation after the change is the best one.
    expected = {"noise": 140_000, "gradient_clipped": 140_000, "below_best": 120_000}
    assert finding.since_step == expected.get(kind, 100_000)
    assert f"since step {finding.since_step:,}" in finding.sentence.lower()
    assert finding.sentence.endswith(".") and "\n" not in finding.sentence
    assert len(finding.short) < 60


def run_that_never_learns(
    change: Change, start: int, followed: str = "pathwise"
) -> Callable[[int], dict[str, float]]:
    """The returns are flat from the first update on, the other changes begin later."""
    assert not callable(change)
    flat, later = run(NEVER_LEARNS), run(change, start=start, followed=followed)

    def row(update: int) -> dict[str, float]:
        found = later(update)
        return found | {tag: x for tag, x in flat(update).items() if tag in NEVER_LEARNS}

    return row


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("kind", PROVOKED)
def test_advice_names_only_settings_that_the_agent_has(kind: str, agent: str) -> None:
    """Whichever estimator is followed; values of --estimator and --distribution exist, too."""
    config = load_agent(agent)[1]
    types, settings = typing.get_type_hints(config), setting_names(config)
    for followed in ("pathwise", "score_function", "mixed", "critic"):
        diagnosis = Diagnosis()
        diagnosis.history.settings = settings
        own = {x.replace("pathwise", followed): v for x, v in dict(change_at(kind)).items()}
        diagnose(run_that_never_learns(own, 100, followed), diagnosis=diagnosis)
        text = " ".join(finding.sentence for finding in diagnosis.findings)
        flags = {flag[2:].replace("-", "_") for flag in FLAG.findall(text)}
        assert flags <= settings, text
        values = re.findall(r"--(estimator|distribution) (\w+)", text)
        assert all(value in typing.get_args(types[name]) for name, value in values), text


def setting_names(config: type[Any]) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(config))


def change_at(kind: str) -> Row:
    """What provokes a finding, at update 100 where it differs from update to update."""
    change = PROVOKED[kind][0]
    return change(100) if callable(change) else change


def test_svg_has_no_estimator_to_choose_and_is_told_of_shorter_windows_alone() -> None:
    diagnosis = Diagnosis()
    diagnosis.history.settings = setting_names(SvgConfig)
    (finding,) = diagnose(run(EXPLODED), diagnosis=diagnosis).findings
    assert finding.sentence.endswith("(medians); shorten --n-steps.")


def test_a_finding_for_which_the_agent_has_no_setting_ends_without_advice() -> None:
    diagnosis = Diagnosis()
    diagnosis.history.settings = frozenset()
    (finding,) = diagnose(run({"train/saturated_actions": 0.9}), diagnosis=diagnosis).findings
    assert finding.sentence.endswith("noise explores nothing.")


@pytest.mark.parametrize("kind", PROVOKED)
def test_a_finding_ends_with_its_condition(kind: str) -> None:
    """After another hundred updates without it."""
    change, followed = PROVOKED[kind][0], FOLLOWED.get(kind, "pathwise")
    diagnosis = diagnose(run(change, start=100, stop=200, followed=followed), 200)
    diagnose(run(followed=followed), 300, diagnosis, start=200)
    assert diagnosis.findings == [] and diagnosis.kinds == ()


@pytest.mark.parametrize("kind", PROVOKED)
def test_a_moment_is_no_finding(kind: str) -> None:
    """The condition holds in one measured update alone, which is an evaluation as well."""
    change, followed = PROVOKED[kind][0], FOLLOWED.get(kind, "pathwise")
    assert kind not in diagnose(run(change, start=100, stop=101, followed=followed)).kinds


@pytest.mark.parametrize("followed", ["pathwise", "mixed", "score_function"])
def test_a_healthy_run_has_no_findings_at_any_time(followed: str) -> None:
    """Nor where the score function has the smaller variance of the two."""
    smaller = {"gradient/variance_ratio": 0.01, "gradient/pathwise/variance": 1e5}
    row = run(smaller if followed == "score_function" else None, followed=followed)
    diagnosis = Diagnosis()
    for update in range(300):
        diagnosis.observe(row(update), STEPS * update)
        assert diagnosis.findings_at_end == []


# What each rule needs -----------------------------------------------------------------------------


def kinds(change: Change, **settings: Any) -> set[str]:
    return set(diagnose(run(change, **settings)).kinds)


def test_a_larger_variance_does_not_matter_below_the_signal() -> None:
    change = {"gradient/pathwise/variance": 10.0, "gradient/score_function/variance": 1.0}
    assert kinds(change) == {"variance"}
    assert kinds(change | {"gradient/pathwise/signal": 20.0}) == set()


def test_less_than_twice_the_variance_is_no_finding() -> None:
    assert kinds({"gradient/score_function/variance": 2.6}) == set()
    assert kinds({"gradient/score_function/variance": 2.4}) == {"variance"}


def test_three_of_five_measurements_are_not_enough() -> None:
    """Three of five are bad, again and again; then four of five."""

    def bad(often: int) -> Change:
        return lambda update: {
            "gradient/pathwise/variance": 1e4 if update // 10 % 5 < often else 5.0
        }

    assert kinds(bad(3)) == set() and kinds(bad(4)) == {"variance"}


def test_mixed_is_compared_with_the_better_of_the_two() -> None:
    """Not with pathwise where that is biased, which the mix then rightly avoids."""
    low = {"gradient/pathwise/variance": 0.1}
    assert kinds(low, followed="mixed") == {"variance"}
    biased = {"gradient/bias_z": 9.0, "gradient/bias_low": 0.1, "gradient/mix/guarded": 1.0}
    assert kinds(low | biased, followed="mixed") == set()
    assert kinds(low | biased | {"gradient/mix/guarded": 0.1}, followed="mixed") == {"bias"}


def test_who_follows_the_score_function_is_told_of_a_better_one_by_the_matched_ratio() -> None:
    """Its own variance may be of another objective. A bias of pathwise does not concern it."""
    (finding,) = diagnose(run(followed="score_function")).findings
    assert finding.kind == "variance"
    assert finding.number == 80.0 and "shac" in finding.sentence
    biased = {"gradient/bias_z": 9.0, "gradient/bias_low": 0.1}
    assert kinds(biased, followed="score_function") == set()


def test_a_bias_needs_a_lower_end_above_zero() -> None:
    assert kinds({"gradient/bias_z": 9.0, "gradient/bias_low": -0.1}) == set()
    assert kinds({"gradient/bias_z": 4.9, "gradient/bias_low": 0.1}) == set()


def test_a_bias_without_an_interval_at_the_same_measurement_is_none() -> None:
    """The interval is absent where there are too few trajectories for one."""
    biased = run({"gradient/bias_z": 9.0, "gradient/bias_low": 0.1})

    def row(update: int) -> dict[str, float]:
        found = biased(update)
        return found if update == 0 else found | {"gradient/bias_low": math.nan}

    assert diagnose(biased).kinds == ("bias",) and diagnose(row).kinds == ()


def test_a_heavy_tail_that_is_still_the_better_gradient_is_no_finding() -> None:
    """As on the healthy pendulum. With few trajectories a share means nothing."""
    heavy = {"gradient/pathwise/largest_share": 0.98}
    assert kinds(heavy) == set()
    worse = heavy | {"gradient/score_function/variance": 2.0}
    assert kinds(worse) == {"variance", "one_trajectory"}
    assert kinds(worse | {"gradient/trajectories": 8.0}) == {"variance"}


def test_a_gradient_that_vanishes_once_the_run_has_learned_is_no_noise() -> None:
    """Unless another estimator still sees it on the same trajectories."""
    assert kinds(UNSEEN, start=100) == set()
    (finding,) = diagnose(
        run(UNSEEN | {"gradient/score_function/signal_z": 2.5}, start=100)
    ).findings
    assert finding.kind == "noise"
    assert "the score function beside it sees one (z 5.6)" in finding.sentence


def test_how_many_trajectories_are_needed_cannot_be_told_without_a_signal() -> None:
    row = run_that_never_learns(UNSEEN | {"gradient/pathwise/signal": -0.1} | NEVER_LEARNS, 100)
    (finding,) = diagnose(row).findings
    assert finding.kind == "noise" and "it cannot be told how many" in finding.sentence


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ((-1000.0, -100.0, -109.0), set[str]()),
        ((-1000.0, -100.0, -112.0), {"below_best"}),
        ((0.0, 500.0, 440.0), {"below_best"}),
        ((0.0, 500.0, 460.0), set[str]()),
        # The best return is near 0, of which every difference is a large share.
        ((-1000.0, -0.1, -0.5), set[str]()),
        ((-1000.0, -0.1, -20.0), {"below_best"}),
        ((-20.0, -10.0), set[str]()),
        ((5.0,), set[str]()),
    ],
)
def test_the_end_is_below_the_best_from_a_tenth_on(
    returns: tuple[float, ...], expected: set[str]
) -> None:
    """At the end of a run the last evaluation is enough; while it goes on, it takes two."""
    diagnosis = Diagnosis()
    for i, value in enumerate(returns):
        diagnosis.observe({"eval/mean_reward": value}, 50_000 * i)
    assert {finding.kind for finding in diagnosis.findings_at_end} == expected
    assert diagnosis.findings == []
    diagnosis.observe({"eval/mean_reward": returns[-1]}, 50_000 * len(returns))
    assert set(diagnosis.kinds) == expected


def test_a_difference_within_the_errors_of_evaluations_is_no_fall() -> None:
    """Three standard errors of a difference of two evaluations are 3 sqrt(2) 0.47 = 2.0."""
    for last, expected in ((-1.067, set()), (-3.0, {"below_best"})):
        diagnosis = Diagnosis()
        for step, value in enumerate((-2.0, -0.635, last, last)):
            row = {"eval/mean_reward": value, "eval/standard_error": 0.47}
            diagnosis.observe(row, step)
        assert set(diagnosis.kinds) == expected


def test_a_policy_that_needs_its_noise_is_told_apart_from_one_that_fell() -> None:
    def found(training: float, error: float, evaluations: tuple[float, ...]) -> set[str]:
        diagnosis = Diagnosis()
        for step, value in enumerate(evaluations):
            row = {"eval/mean_reward": value, "eval/standard_error": error}
            diagnosis.observe(row | {"rollout/ep_rew_mean": training}, step)
        return set(diagnosis.kinds)

    assert found(0.83, 0.3, (-1.07, -1.0, -1.07)) == {"relies_on_noise"}
    assert found(0.83, 0.5, (-1.07, -1.0, -1.07)) == set()  # within the errors
    assert found(-1.2, 0.1, (-1.07, -1.0, -1.07)) == set()  # the mode returns more, as is usual
    assert found(0.83, 0.1, (-1.07, 0.9, -1.0, -1.0)) == {"below_best"}  # episodes of before


def test_large_steps_are_found_relative_to_the_usual_ones_and_absolutely() -> None:
    def spikes(height: float, usual: float) -> Change:
        return lambda update: {"train/approx_kl": height if update % 10 == 0 else usual}

    assert kinds(spikes(0.3, 0.01)) == {"kl"}
    assert kinds(spikes(0.3, 0.04)) == set()
    assert kinds(spikes(0.15, 0.001)) == set()
    assert kinds(spikes(0.6, 0.3)) == {"kl"}


def test_a_small_standard_deviation_is_right_once_the_run_has_learned() -> None:
    assert kinds({"train/std": 0.001}, start=100) == set()


def test_a_constant_value_function_is_right_once_the_return_is_constant() -> None:
    assert kinds({"train/explained_variance": -5.0}, start=100) == set()
    fallen = {"eval/mean_reward": -900.0, "rollout/ep_rew_mean": -900.0}
    assert kinds({"train/explained_variance": -5.0} | fallen, start=100) == {
        "below_best",
        "value_function",
    }


def test_clipping_every_update_is_usual_while_there_is_a_gradient() -> None:
    assert kinds({"train/gradient_clipped": 1.0}) == set()


# The cause ----------------------------------------------------------------------------------------

EXPLODED = {"gradient/pathwise/variance": 1.2e8, "gradient/score_function/variance": 1.1}


def sentence_with(**causes: float) -> str:
    tags = {"gain": "train/policy_gain", "growth": "gradient/adjoint_growth"}
    given = {tags[name]: value for name, value in causes.items()}
    usual = {tag: 12.0 if tag == "train/policy_gain" else 0.9 for tag in given}
    diagnosis = diagnose(run(usual), 100)
    diagnose(run(EXPLODED | given), 200, diagnosis, start=100)
    return diagnosis.findings[0].sentence


def test_a_gain_and_an_adjoint_that_grows_are_named_as_the_cause() -> None:
    assert (
        "The closed loop amplifies: the policy's gain is 310 (12 early in the run), the adjoint "
        "grows 1.40 times a step"
    ) in sentence_with(gain=310.0, growth=1.4)


def test_the_causes_are_named_one_by_one() -> None:
    assert "gain is 310" in (gain := sentence_with(gain=310.0)) and "adjoint" not in gain
    assert "adjoint grows 1.40" in (growth := sentence_with(growth=1.4)) and "gain" not in growth
    assert "amplifies" not in sentence_with(gain=20.0, growth=1.13)


def test_no_cause_is_named_where_the_variance_does_not_explode() -> None:
    change = {"gradient/score_function/variance": 1.0, "gradient/adjoint_growth": 1.4}
    (finding,) = diagnose(run(change)).findings
    assert finding.kind == "variance" and "amplifies" not in finding.sentence


# What may be missing ------------------------------------------------------------------------------


def test_a_run_without_anything_has_no_findings() -> None:
    """No measurements, evaluations or tags; the lines say that nothing was measured."""
    diagnosis = diagnose(lambda update: {"mine/score": 1.0})
    assert diagnosis.findings_at_end == []
    gradient, verdict = report_lines(diagnosis)
    assert "not measured: that needs 3 trajectories or more" in gradient
    assert "--num-envs" in gradient and "--diagnostics-interval" in gradient
    assert verdict.split() == ["diagnosis:", "nothing", "to", "report"]
    assert report_lines(Diagnosis()) == [gradient, verdict]


@pytest.mark.parametrize("kind", PROVOKED)
@pytest.mark.parametrize("prefix", ["gradient/", "eval/", "rollout/", "train/"])
def test_any_group_of_tags_may_be_missing_or_not_finite(kind: str, prefix: str) -> None:
    """Other findings stay, a bad value is an absent one, and all texts can be made."""
    change = PROVOKED[kind][0]
    full = run(change, start=50)
    found = []
    for bad in (math.nan, math.inf, None):

        def row(update: int, bad: float | None = bad) -> dict[str, float]:
            kept = {t: x for t, x in full(update).items() if not t.startswith(prefix)}
            if bad is None:
                return kept
            return kept | {t: bad for t in full(update) if t.startswith(prefix)}

        diagnosis = diagnose(row)
        found.append((diagnosis.kinds, report_lines(diagnosis)))
    assert found[0] == found[1] == found[2]
    assert set(found[0][0]) <= set(diagnose(full).kinds) | {"value_function", "std", "noise"}


@pytest.mark.parametrize("kind", PROVOKED)
def test_any_single_tag_may_be_missing(kind: str) -> None:
    change = PROVOKED[kind][0]
    full = run(change, start=50)
    for missing in full(0):

        def row(update: int, missing: str = missing) -> dict[str, float]:
            return {tag: value for tag, value in full(update).items() if tag != missing}

        assert report_lines(diagnose(row))


def test_an_estimator_of_ones_own_is_followed_if_it_is_the_only_one() -> None:
    def row(update: int) -> dict[str, float]:
        return {f"gradient/mine/{what}": 1.0 for what in ("variance", "signal", "largest_share")}

    diagnosis = diagnose(row)
    assert diagnosis.kinds == ("one_trajectory",)
    assert "mine is followed, with a variance of 1 (no other" in gradient_text(diagnosis)


NOT_EXCLUDED = (
    "do not exclude one that matters (pgtoolkit check-env tests the environment's gradient)"
)

# Texts --------------------------------------------------------------------------------------------


def test_the_closing_line_on_a_sound_gradient() -> None:
    assert gradient_text(diagnose(run())) == (
        "sound, while the evaluations rose from -1,000 to -52.63: "
        "pathwise is followed, with a variance of 5, 80 times less than the score "
        "function's 400; 64 trajectories give an update an SNR of 6.4 (10 are enough for an SNR of "
        "1); no bias of pathwise is seen (highest z 0.8)"
    )


@pytest.mark.parametrize(
    ("least", "said"), [(-0.6, True), (-0.61, False), (-2.0, False), (math.nan, True)]
)
def test_where_no_bias_is_seen_it_is_said_if_one_that_matters_would_not_be(
    least: float, said: bool
) -> None:
    """From 25 % of the signal on, so above -0.602; an absent number excludes nothing."""
    text = gradient_text(diagnose(run({"gradient/log10_detectable_bias": least})))
    assert (NOT_EXCLUDED in text) == said and text.startswith("unproven" if said else "sound")


def test_a_bias_that_would_have_been_seen_long_ago_is_not_excluded_now() -> None:
    """The number is absent while no signal is seen."""
    change = {"gradient/log10_detectable_bias": math.nan}
    late = gradient_text(diagnose(run(change, start=100)))
    assert late.startswith("unproven") and late.endswith(NOT_EXCLUDED)


@pytest.mark.parametrize(
    ("followed", "begin"),
    [("pathwise", "unproven"), ("mixed", "unproven"), ("score_function", "sound")],
)
def test_a_gradient_is_sound_only_if_no_bias_that_matters_can_reach_it(
    followed: str, begin: str
) -> None:
    change = {"gradient/log10_detectable_bias": math.nan, "gradient/variance_ratio": 1.0}
    assert gradient_text(diagnose(run(change, followed=followed))).startswith(f"{begin}, while ")


def test_a_guarded_mix_is_the_score_function_and_has_no_bias() -> None:
    change = {"gradient/log10_detectable_bias": math.nan, "gradient/mix/guarded": 1.0}
    assert gradient_text(diagnose(run(change, followed="mixed"))).startswith("sound, while ")


def test_a_bias_that_is_not_measured_is_not_excluded() -> None:
    text = gradient_text(diagnose(run({"gradient/bias_z": math.nan})))
    assert text.startswith("unproven") and "no bias is measured (pgtoolkit check-env" in text


CRITICS = [f"gradient/critic/{name}" for name in HEALTHY_CRITIC]


@pytest.mark.parametrize(
    ("change", "quality", "said"),
    [
        ({}, "sound", "no bias of the critic's is seen at the end (highest z 2.0)"),
        ({"gradient/critic/bias_z": 9.0, "gradient/critic/bias_low": 0.1}, "unproven", "is biased"),
        (
            {"gradient/critic/bias_z": 9.0},
            "unproven",
            "possible, and not proven at the end (highest z 9.0)",
        ),
        (dict.fromkeys(CRITICS, math.nan), "unproven", "no bias of the critic's is measured"),
    ],
)
def test_a_critics_gradient_is_sound_only_if_a_bias_was_looked_for_and_not_seen(
    change: Row, quality: str, said: str
) -> None:
    """An agent may climb the slope of a wrong critic with a clear signal, and learn nothing."""
    text = gradient_text(diagnose(run(change, followed="critic")))
    assert text.startswith(f"{quality}, while ") and said in text
    beside = gradient_text(diagnose(run(change, followed="pathwise")))
    assert beside.startswith("sound, while ") and "critic's is measured" not in beside


def returns(*values: float) -> Change:
    """The evaluations in their order, and no training returns; the last one goes on."""

    def change(update: int) -> dict[str, float]:
        value = values[min(update // EVALUATED, len(values) - 1)]
        return {"eval/mean_reward": value, "rollout/ep_rew_mean": math.nan}

    return change


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((-260.0, -14.0), "the evaluations rose from -260 to -14"),
        ((-260.0, -14.0, -240.0), "the evaluations rose from -260 to -14 and fell to -240"),
        ((-72.7, -70.0), "the evaluations rose little (from -72.7 to -70)"),
        ((-72.7, -76.2), "the evaluations did not improve (from -72.7 to -76.2)"),
        ((-72.7, -71.0, -76.2), "the evaluations did not improve (from -72.7 to -76.2)"),
        ((5.0,), "the evaluations did not improve (from 5 to 5)"),
        ((math.nan,), "there are too few returns to tell whether the agent learns"),
    ],
)
@pytest.mark.parametrize(
    ("change", "quality"),
    [({}, "sound"), ({"gradient/log10_detectable_bias": math.nan}, "unproven")],
)
def test_the_gradients_quality_never_stands_without_what_became_of_the_return(
    change: Row, quality: str, values: tuple[float, ...], said: str
) -> None:
    """A sound gradient does not make an agent learn, and one that learns may follow another."""
    course = returns(*values)
    assert callable(course)
    text = gradient_text(diagnose(run(lambda update: {**course(update), **change})))
    assert text.startswith(f"{quality}, while {said}: pathwise is followed")


@pytest.mark.parametrize("evaluation", [math.nan, -1000.0])
def test_training_returns_count_where_there_are_not_two_evaluations(evaluation: float) -> None:
    """Without evaluations, and in a run with the first one alone."""

    def row(update: int) -> dict[str, float]:
        return run()(update) | {"eval/mean_reward": evaluation if update == 0 else math.nan}

    said = "sound, while the training returns rose from -1,000 to -47.85: "
    assert gradient_text(diagnose(row)).startswith(said)


def test_one_trajectory_is_enough() -> None:
    text = gradient_text(diagnose(run({"gradient/pathwise/signal": 50.0})))
    assert "64 trajectories give an update an SNR of 640 (1 is enough for an SNR of 1)" in text


def test_the_closing_line_on_an_unreliable_gradient() -> None:
    change = EXPLODED | UNSEEN | {"gradient/pathwise/signal": -1.0}
    text = gradient_text(diagnose(run(change | NEVER_LEARNS)))
    assert text == (
        "unreliable, while the evaluations did not improve (from -1,000 to -1,000): "
        "pathwise is followed, with a variance of 1.2e8, 1.1e8 times more than the "
        "score function's 1.1; no gradient is seen in the noise of 64 trajectories: near the "
        "best return, or too few; a bias of pathwise would not be seen in this variance"
    )


def test_the_closing_line_on_a_gradient_that_another_one_would_beat() -> None:
    """The ratio of the score function to pathwise is the matched one, not 400 / 5."""
    change = {"gradient/variance_ratio": 50.0, "gradient/score_function/signal": 7.0}
    text = gradient_text(diagnose(run(change, followed="score_function")))
    assert text.startswith("usable, but noisier than need be, while the evaluations rose")
    assert "50 times more than pathwise's 5 (the ratio is of one objective)" in text
    unseen = {"gradient/score_function/signal": 6.0}  # 64 * 6 / 400 is below 1
    text = gradient_text(diagnose(run(change | unseen, followed="score_function")))
    assert text.startswith("unreliable")


@pytest.mark.parametrize(
    ("followed", "expected"),
    [
        ("pathwise", "80 times less than the score function's 400 (95 % interval at the last"),
        ("score_function", "50 times more than pathwise's 5 (the ratio is of one objective, 95 %"),
    ],
)
def test_a_ratio_of_variances_has_its_interval(followed: str, expected: str) -> None:
    """It is that of the larger over the smaller, whichever is followed."""
    ratio = {f"gradient/variance_ratio{end}": x for end, x in ENDS.items()}
    text = gradient_text(diagnose(run(ratio, followed=followed)))
    assert expected in text and "interval at the last measurement: 20 to 130 times)" in text


ENDS = {"": 50.0, "_low": 20.0, "_high": 130.0}


def test_an_interval_of_another_measurement_or_without_an_end_is_not_said() -> None:
    low = {"gradient/variance_ratio": 50.0, "gradient/variance_ratio_low": 20.0}
    assert "interval" not in gradient_text(diagnose(run(low)))


@pytest.mark.parametrize(
    ("variance", "text"),
    [(5.5, "about the score function's 5.5"), (4.6, "about"), (7.0, "1.4 times less than")],
)
def test_variances_that_are_alike_are_said_to_be_so(variance: float, text: str) -> None:
    row = run({"gradient/score_function/variance": variance})
    assert f"with a variance of 5, {text}" in gradient_text(diagnose(row))


def test_the_closing_line_after_few_measurements_says_so() -> None:
    assert gradient_text(diagnose(run(), 25)).startswith("only 3 measurements, while the eval")


def test_a_single_measurement_is_one() -> None:
    assert gradient_text(diagnose(run(), 5)).startswith("only 1 measurement, while the training")


@pytest.mark.parametrize("change", [UNSEEN, {"gradient/pathwise/signal": -1.0}])
def test_a_gradient_that_is_not_seen_is_not_called_sound(change: Row) -> None:
    """The run has learned: a small gradient is normal; that it is at its best is not known."""
    text = gradient_text(diagnose(run(change, start=100)))
    assert text.startswith("too small to see, as near the best return, while the evaluations rose")
    seen = "no gradient is seen in the noise of 64 trajectories: near the best return, or too few"
    assert seen in text


def test_a_z_below_zero_is_the_highest_one() -> None:
    text = gradient_text(diagnose(run({"gradient/bias_z": -0.7})))
    assert "no bias of pathwise is seen (highest z -0.7)" in text


def test_the_report_has_every_finding_in_full() -> None:
    diagnosis = diagnose(run(EXPLODED | {"train/saturated_actions": 0.8}))
    gradient, title, *rows = report_lines(diagnosis)
    assert gradient.startswith("gradient:       unreliable") and title == "diagnosis:"
    assert rows == [f"  - {finding.sentence}" for finding in diagnosis.findings]
    assert [finding.kind for finding in diagnosis.findings] == ["variance", "saturated_actions"]


def test_the_progress_line_has_the_most_serious_finding() -> None:
    diagnosis = diagnose(run(EXPLODED | {"train/saturated_actions": 0.8}))
    assert short_text(diagnosis.findings) == (
        "! pathwise variance 1.1e8 times the score function's (and 1 more)"
    )
    assert short_text(diagnosis.findings[1:]) == "! 80% of actions saturated"
    assert short_text([]) == ""


def test_tensorboards_text_has_the_gradient_and_the_newest_finding_first() -> None:
    """Flags are code: Markdown may make a dash of two hyphens."""
    findings = [Finding("a", 10, 1.0, "One.", "one"), Finding("b", 20, 2.0, "Use --x-y.", "two")]
    begin = "**Gradient:** sound: a\n\n**Diagnosis:**\n\n"
    assert markdown(findings, "sound: a") == f"{begin}- Use `--x-y`.\n- One."
    assert markdown([], "sound: a") == f"{begin}nothing to report"
    assert markdown([], "sound: a", "it fell") == f"{begin}it fell"


def test_a_finding_in_the_summary_is_four_plain_values() -> None:
    finding = diagnose(run(EXPLODED)).findings[0].as_dict()
    assert list(finding) == ["kind", "since_step", "sentence", "number"]
    assert json.loads(json.dumps(finding, allow_nan=False)) == finding


# State --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROVOKED)
def test_a_diagnosis_that_is_resumed_goes_on_as_if_it_had_not_stopped(
    kind: str, tmp_path: Path
) -> None:
    """Stopped before, amid and after the beginning of the finding, through a checkpoint's file."""
    row = run(PROVOKED[kind][0], start=100)
    whole = diagnose(row)
    for stop in (95, 125, 170):
        save_checkpoint(tmp_path / "state", diagnose(row, stop).state_dict())
        resumed = Diagnosis()
        resumed.load_state_dict(load_checkpoint(tmp_path / "state"))
        assert resumed.findings == diagnose(row, stop).findings
        diagnose(row, 200, resumed, start=stop)
        assert resumed.findings == whole.findings
        assert resumed.state_dict() == whole.state_dict()


# Real runs ----------------------------------------------------------------------------------------


def train(agent: Any, total_steps: int) -> Diagnosis:
    """The diagnosis of an agent's own metrics; there are no evaluations."""
    diagnosis = Diagnosis()
    while agent.collector.num_steps < total_steps:
        diagnosis.observe(as_floats(agent.update(agent.collect())), agent.collector.num_steps)
    return diagnosis


def test_agents_report_what_the_diagnosis_reads() -> None:
    """Which estimator is followed, how many trajectories there are, and how actions are clipped."""
    env = DifferentiableVectorEnv(Pendulum(), 16)
    small: dict[str, Any] = {"num_envs": 16, "n_steps": 8, "hidden": (8,), "compile": "never"}
    for estimator in ("pathwise", "mixed"):
        history = train(Shac(ShacConfig(**small, estimator=estimator), env), 128).history
        assert history.followed == estimator
        assert history.now("gradient/trajectories") == 16
    history = train(Ppo(PpoConfig(**small, batch_size=64), env), 128).history
    assert history.followed == "score_function"
    assert history.get("train/clipped_actions") is not None


@pytest.mark.slow
def test_a_healthy_run_of_shac_has_nothing_to_report() -> None:
    agent = Shac(
        ShacConfig(estimator="pathwise"),
        DifferentiableVectorEnv(Pendulum(), 64),
        total_steps=300_000,
    )
    assert train(agent, 300_000).findings_at_end == []


@pytest.mark.slow
def test_a_pathwise_gradient_through_contacts_is_found_to_vary_more() -> None:
    """Friction and contact of a pushed block: from 20,000 steps on, by a factor of ten and more."""
    agent = Shac(
        ShacConfig(estimator="pathwise"),
        DifferentiableVectorEnv(PusherFriction(), 64),
        total_steps=300_000,
    )
    assert "variance" in train(agent, 200_000).kinds


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((-260.0, -14.0), "nothing to report"),
        ((-72.7, -76.2), "but the evaluations did not improve (from -72.7 to -76.2): train longer"),
        ((-72.7, -70.0), "but the evaluations rose little (from -72.7 to -70): train longer"),
        ((math.nan,), "nothing to report"),
    ],
)
def test_a_run_that_learned_nothing_does_not_end_as_a_healthy_one(
    values: tuple[float, ...], said: str
) -> None:
    course = returns(*values)
    assert callable(course)
    lines = report_lines(diagnose(run(course)))
    assert len(lines) == 2 and said in lines[1]


@pytest.mark.parametrize(
    "count, said", [(1, " in 1 measurement"), (4, " in 4 measurements"), (5, "")]
)
def test_a_run_with_few_measurements_says_so_where_no_rule_found_a_fault(
    count: int, said: str
) -> None:
    """A rule is tested five times; that it found nothing in fewer is no clean bill."""
    history = History()
    for step in range(2):
        history.add({"eval/mean_reward": -72.7}, step)
    for step in range(count):
        history.add({"gradient/pathwise/variance": 1.0, "gradient/pathwise/followed": 1.0}, step)
    assert nothing_text(history).startswith(f"no rule found a fault{said}, but the evaluations did")
