"""The runs of a comparison, their settings and their folders."""

from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.experiment import parse_settings
from pgtoolkit.scripts.comparison.plan import PlannedRun, plan_runs, require_possible
from pgtoolkit.scripts.comparison.variants import parse_variants

SMALL = {"total_steps": 64, "num_envs": 2, "n_steps": 4, "hidden": [4]}


def plan(agents: list[str], envs: list[str], seeds: list[int], **settings: Any) -> list[PlannedRun]:
    common = SMALL | settings
    arguments: dict[str, Any] = {"common": common, "root": Path("x y"), "final_episodes": 3}
    return plan_runs(parse_variants(agents, []), envs, seeds, **arguments)


def test_every_agent_has_every_environment_and_seed_and_a_folder_of_its_own() -> None:
    runs = plan(
        ["apg", "shac", "shac:gamma=0.5"], ["pgtoolkit/LQG-v0", "pgtoolkit/Wall-v0"], [3, 0]
    )
    assert len({run.name for run in runs}) == len(runs) == 12
    assert [run.seed for run in runs] == [3] * 6 + [0] * 6
    assert runs[2].settings.agent.gamma == 0.5 and runs[1].settings.agent.gamma != 0.5
    assert runs[0].name.startswith("pgtoolkit-LQG-v0__apg__3__")


def test_a_folder_is_named_by_all_settings_and_by_nothing_else() -> None:
    """A default that is given is the same run; every other value is another one."""
    (one,) = plan(["shac"], ["pgtoolkit/LQG-v0"], [0])
    (same,) = plan(["shac"], ["pgtoolkit/LQG-v0"], [0], gamma=one.settings.agent.gamma)
    (other,) = plan(["shac"], ["pgtoolkit/LQG-v0"], [0], total_steps=128)
    assert one.name == same.name != other.name


def test_the_command_line_of_a_run_has_its_settings() -> None:
    (run,) = plan(["ppo:normalize_rewards=false"], ["Pendulum-v1"], [4], batch_size=8)
    command, agent, *flags = run.train_arguments()
    assert (command, agent) == ("train", "ppo")
    assert flags[-4:] == ["--preset", "none", "--run-dir", str(run.path)]
    assert parse_settings(agent, flags[:-4], command="train") == run.settings
    assert run.settings.run.seed == 4 and not run.settings.agent.normalize_rewards


def test_settings_of_a_comparison_win_over_a_preset() -> None:
    (run,) = plan_runs(
        parse_variants(["ppo:gamma=0.5"], []),
        ["Pendulum-v1"],
        [0],
        common={"batch_size": 8},
        presets={("ppo", "Pendulum-v1"): {"gamma": 0.9, "batch_size": 4, "n_epochs": 3}},
        root=Path("runs"),
        final_episodes=1,
    )
    agent = run.settings.agent
    assert (agent.gamma, agent.batch_size, agent.n_epochs) == (0.5, 8, 3)
    assert run.given["n_epochs"] == 3


def test_final_starts_are_of_a_stream_of_their_own_and_equal_for_all_agents() -> None:
    runs = plan(["apg", "shac"], ["pgtoolkit/LQG-v0"], [0, 1])
    assert runs[0].final_seed == runs[1].final_seed != runs[2].final_seed


def test_what_cannot_be_run_is_refused_before_anything_runs() -> None:
    with pytest.raises(RequestError, match="no setting 'clip_range'"):
        plan(["shac:clip_range=0.1"], ["pgtoolkit/LQG-v0"], [0])
    with pytest.raises(RequestError, match="ppo on Nowhere-v1: "):
        require_possible(plan(["ppo"], ["Nowhere-v1"], [0], batch_size=8))
    with pytest.raises(RequestError, match="apg on CartPole-v1: "):
        require_possible(plan(["apg"], ["CartPole-v1"], [0]))


def test_the_sizes_of_observations_and_actions_are_those_of_the_environments() -> None:
    runs = plan(
        ["ppo"], ["Pendulum-v1", "CartPole-v1", "pgtoolkit/Quadrotor-v0"], [0], batch_size=8
    )
    sizes = require_possible(runs)
    assert sizes["Pendulum-v1"] == (3, 1) and sizes["CartPole-v1"] == (4, 2)
    assert sizes["pgtoolkit/Quadrotor-v0"][1] == 4


def test_an_environment_in_a_file_is_named_without_its_folder(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").touch()
    envs = [f"{tmp_path / folder}/mine.py:Mine" for folder in ("a", "b")]
    one, other = plan(["apg"], envs, [0])
    assert one.name.startswith("mine.py-Mine__apg__0__") and one.name != other.name
    assert one.title == "apg on mine.py:Mine, seed 0"
