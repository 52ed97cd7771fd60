import json
import math
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.benchmarks.sb3_peers import PEERS, settings_of, theirs, window_size
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.scripts.studies.against_sb3 import (
    OURS,
    THEIRS,
    AgainstSb3Arguments,
    evaluation_steps,
    report,
    run,
)

TINY = {
    "a2c": {"num_envs": 2, "n_steps": 4},
    "ppo": {"num_envs": 2, "n_steps": 16, "batch_size": 8, "n_epochs": 2},
    "trpo": {"num_envs": 2, "n_steps": 16, "vf_minibatches": 2},
    "sac": {"learning_starts": 20, "batch_size": 4, "hidden": [8]},
    "td3": {"learning_starts": 20, "batch_size": 4, "hidden": [8]},
}


def options(**values: Any) -> AgainstSb3Arguments:
    return AgainstSb3Arguments(agent="ppo", json=Path("results.json"), **values)


def runs_of(side: str, *curves: list[float]) -> list[dict[str, Any]]:
    """Runs with these returns after 10, 20, ... steps."""
    return [
        {
            "side": side,
            "seed": seed,
            "curve": [{"steps": 10.0 * (i + 1), "return": y} for i, y in enumerate(curve)],
        }
        for seed, curve in enumerate(curves)
    ]


def test_evaluations_come_after_whole_windows_of_both() -> None:
    found = evaluation_steps(options(total_steps=100_000, eval_interval=10_000), 2048)
    assert list(found) == [10_240 * i for i in range(1, 10)]
    with pytest.raises(RequestError, match="ends before the first evaluation, after 10240 steps"):
        evaluation_steps(options(total_steps=10_000), 2048)


@pytest.mark.parametrize("agent", PEERS)
def test_every_setting_is_one_of_the_agent_and_others_are_refused(agent: str) -> None:
    settings = settings_of(agent, {})
    load_agent(agent)[1](**settings, **PEERS[agent].ours)
    assert settings_of(agent, {"gamma": 0.5})["gamma"] == 0.5
    with pytest.raises(RequestError, match=r"gama: no setting that both .* of .*, gamma,"):
        settings_of(agent, {"gama": 0.5})


def test_the_window_is_what_both_collect_between_updates() -> None:
    assert window_size(settings_of("ppo", {})) == 2048
    assert window_size(settings_of("sac", {})) == 1


def test_the_report_counts_the_points_within_the_interval() -> None:
    ours = runs_of(OURS, [0.0, 2.0, 100.0], [0.0, 2.0, 104.0])
    theirs = runs_of(THEIRS, [-1.0, 1.0, 0.0], [1.0, 3.0, 0.0])
    text = report([*ours, *theirs])
    assert "| 10 | 0 [0, 0] | 0 [-1, 1] |" in text
    assert "within the interval of theirs at 2 of 3 points, and the intervals overlap at 2" in text
    # Standard errors of the last returns: 4 / sqrt(2) / sqrt(2) = 2 and 0.
    assert "102.0 and 0.0; difference 102.0, standard error 2.0" in text


def test_one_seed_has_no_interval() -> None:
    text = report([*runs_of(OURS, [1.0]), *runs_of(THEIRS, [1.0])])
    assert "| 10 | 1 [-, -] | 1 [-, -] |" in text
    assert text.endswith("last return: 1.0 and 1.0; one seed has no interval")


@pytest.mark.parametrize("agent", PEERS)
def test_both_train_and_a_second_call_goes_on(
    agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sb3_contrib")
    file, picture = tmp_path / "results.json", tmp_path / "curves.png"
    flags = [agent, "--json", str(file), "--settings", json.dumps(TINY[agent]), "--episodes", "2"]
    flags += ["--total-steps", "64", "--eval-interval", "32"]
    run([*flags, "--seeds", "1"])
    first = json.loads(file.read_text())
    assert [(one["side"], one["seed"]) for one in first["runs"]] == [(OURS, 0), (THEIRS, 0)]
    for one in first["runs"]:
        assert [point["steps"] for point in one["curve"]] == [32, 64]
        assert all(-2000 < point["return"] < 0 for point in one["curve"])
    run([*flags, "--seeds", "2", "--plot", str(picture)])
    assert json.loads(file.read_text())["runs"][:2] == first["runs"]
    assert picture.stat().st_size > 1000
    with pytest.raises(RequestError, match="holds results of other settings"):
        run([*flags, "--episodes", "3"])
    assert "difference" in capsys.readouterr().out


def test_actions_of_a_box_are_in_the_unit_of_the_environment() -> None:
    """The other implementation sees a box [-1, 1]; evaluations play Pendulum's own, [-2, 2]."""
    pytest.importorskip("stable_baselines3")
    learner = theirs("ppo", "Pendulum-v1", settings_of("ppo", {}), seed=0)
    learner.train(1)
    actions = learner.act(1e6 * pytest.importorskip("numpy").eye(3, dtype="float32"))
    assert actions.shape == (3, 1)
    assert float(abs(actions).max()) <= 2.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "env", "steps", "settings"),
    [
        ("ppo", "Pendulum-v1", 100_000, {"gamma": 0.9, "learning_rate": 1e-3}),
        ("ppo", "CartPole-v1", 60_000, {}),
        ("a2c", "CartPole-v1", 60_000, {}),
        ("trpo", "CartPole-v1", 60_000, {}),
    ],
)
def test_both_reach_the_same_return(
    agent: str, env: str, steps: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Five seeds each; the means of the last evaluations agree within four standard errors."""
    file = tmp_path / "results.json"
    flags = ["--env", env, "--total-steps", str(steps), "--settings", json.dumps(settings)]
    run([agent, "--json", str(file), *flags, "--eval-interval", "10000"])
    runs = json.loads(file.read_text())["runs"]
    sides = [[r["curve"][-1]["return"] for r in runs if r["side"] == s] for s in (OURS, THEIRS)]
    means = [sum(values) / 5 for values in sides]
    squares = [
        sum((x - mean) ** 2 for x in values) / 20 for values, mean in zip(sides, means, strict=True)
    ]
    print(sides)
    assert abs(means[0] - means[1]) <= 4 * max(math.sqrt(sum(squares)), 1e-6)
