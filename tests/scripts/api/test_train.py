"""The five lines, as a user writes them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
import yaml

import pgtoolkit
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.agents.shac import ShacConfig
from pgtoolkit.envs import DifferentiableVectorEnv, Pendulum
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import evaluate as evaluate_command
from pgtoolkit.scripts import resume as resume_command
from pgtoolkit.scripts import train as train_command

ID = "pgtoolkit/Pendulum-v0"
SMALL: dict[str, Any] = {"num_envs": 8, "n_steps": 8, "eval_episodes": 3}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_five_lines() -> None:
    """As the README has them, but for the number of steps."""
    run = pgtoolkit.train("shac", ID, total_steps=128, seed=0, **SMALL)
    observation, _ = gymnasium.make(ID).reset(seed=0)
    action = run.policy.predict(observation)
    again = pgtoolkit.load(run.directory)
    assert again.policy.predict(observation) == action
    assert again.progress == run.progress and run.progress.finished
    assert again.settings == run.settings and again.mean_return == run.mean_return
    assert again.evaluate(2).returns == run.evaluate(2).returns
    there = pgtoolkit.evaluate(again, env="Pendulum-v1", episodes=2)
    assert len(there.returns) == 2 and there.lengths == [200, 200]


def test_a_run_is_that_of_the_command(tmp_path: Path) -> None:
    """The same files to the last weight; settings that are given are those of the flags."""
    run = pgtoolkit.train("shac", ID, total_steps=128, env_kwargs={"g": 9.0}, **SMALL)
    flags = ["--num-envs", "8", "--n-steps", "8", "--eval-episodes", "3", "--total-steps", "128"]
    kwargs = ["--env-kwargs", '{"g": 9.0}', "--run-dir", "other"]
    train_command.run(["shac", "--env", ID, *flags, *kwargs])
    configs = [yaml.safe_load(Path(d, "config.yaml").read_text()) for d in (run.directory, "other")]
    assert configs[0] == configs[1]
    other = pgtoolkit.load("other").policy.module.state_dict()
    for name, value in run.policy.module.state_dict().items():
        assert torch.equal(value, other[name])


@pytest.mark.parametrize(
    ("agent", "make"),
    [
        ("shac", lambda: Pendulum()),
        ("shac", lambda: Pendulum),
        ("shac", lambda: DifferentiableVectorEnv(Pendulum(), 8)),
        ("ppo", lambda: gymnasium.make("Pendulum-v1")),
        ("ppo", lambda: lambda: gymnasium.make("Pendulum-v1")),
        ("ppo", lambda: gymnasium.make_vec("Pendulum-v1", num_envs=8)),
        ("ppo", lambda: lambda: gymnasium.make_vec("Pendulum-v1", num_envs=8)),
    ],
)
def test_objects_and_functions_train_evaluate_and_resume(
    agent: str, make: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """From Python; the command that resumes says in a sentence that it cannot, and what can."""
    env = make()
    run = pgtoolkit.train(agent, env, total_steps=64, **SMALL)
    assert run.config.num_envs == 8
    assert "if this run is stopped, pgtoolkit.load(folder, env=...) " in capsys.readouterr().out
    longer = run.resume(128)
    assert longer.progress.num_steps == 128
    with pytest.raises(RequestError, match="an object in Python, which cannot be made again"):
        resume_command.run([str(run.directory), "--total-steps", "256"])
    with pytest.raises(RequestError, match="an object in Python"):
        pgtoolkit.load(run.directory)
    assert pgtoolkit.load(run.directory, env=env).evaluate(3) == longer.evaluate(3)
    assert pgtoolkit.evaluate(run.directory, env=env, episodes=3) == longer.evaluate(3)
    evaluate_command.run([str(run.directory), "--env", "Pendulum-v1", "--episodes", "1"])


def test_an_object_trains_as_its_id_does() -> None:
    """The same weights, and the object itself is never stepped. Only an id has a preset."""
    env = gymnasium.make("Pendulum-v1")
    plain: dict[str, Any] = {**SMALL, "total_steps": 64, "preset": "none"}
    runs = [pgtoolkit.train("ppo", one, **plain) for one in (env, "Pendulum-v1")]
    weights = [list(run.policy.module.state_dict().values()) for run in runs]
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_settings_of_an_agent_stand_in_its_configuration() -> None:
    run = pgtoolkit.train(ShacConfig(num_envs=8, n_steps=4), Pendulum(), total_steps=32)
    assert run.config == ShacConfig(num_envs=8, n_steps=4, estimator="mixed")
    with pytest.raises(RequestError, match=r"write ShacConfig\(n_steps=8\)"):
        pgtoolkit.train(ShacConfig(), Pendulum(), n_steps=8)


def test_a_callback_sees_every_update_and_may_stop() -> None:
    """It is saved after that update, and the resumed run equals one that never stopped."""
    seen: list[int] = []

    def stop_at_two(progress: pgtoolkit.TrainingProgress, metrics: Mapping[str, float]) -> None:
        seen.append(progress.num_steps)
        assert "time/fps" in metrics and progress.total_steps == 256
        if progress.num_updates == 2:
            raise pgtoolkit.StopTraining

    stopped = pgtoolkit.train("shac", ID, total_steps=256, callback=stop_at_two, **SMALL)
    assert seen == [64, 128] and not stopped.progress.finished
    assert pgtoolkit.load(stopped.directory).progress == stopped.progress
    assert not (stopped.directory / "summary.json").exists()
    whole = pgtoolkit.train("shac", ID, total_steps=256, **SMALL)
    resumed = stopped.resume()
    assert resumed.progress == whole.progress
    for name, value in whole.agent.policy.state_dict().items():
        assert torch.equal(value, resumed.agent.policy.state_dict()[name])


def test_a_callback_can_tell_a_new_evaluation_from_an_old_one() -> None:
    """The return stays until the next evaluation, and its number of steps says of when it is."""
    seen: list[tuple[int, int | None, bool]] = []

    def watch(progress: pgtoolkit.TrainingProgress, metrics: Mapping[str, float]) -> None:
        seen.append((progress.num_steps, progress.eval_steps, progress.eval_return is None))

    settings = SMALL | {"eval_interval": 128}
    pgtoolkit.train("shac", ID, total_steps=256, callback=watch, **settings)
    assert seen == [(64, 64, False), (128, 64, False), (192, 192, False), (256, 256, False)]


@pytest.mark.parametrize("env", [ID, Pendulum()])
def test_a_stopped_run_is_told_how_it_goes_on(env: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """By a command, or in Python where that alone can make the environment again; and it does."""

    def stop(progress: object, metrics: object) -> None:
        raise pgtoolkit.StopTraining

    run = pgtoolkit.train("shac", env, total_steps=128, callback=stop, **SMALL)
    said = capsys.readouterr().out.splitlines()[-1]
    folder = run.directory.relative_to(Path.cwd())
    if env == ID:
        assert said == f"stopped at step 64: go on with `pgtoolkit resume {folder}`"
        return
    command = f"pgtoolkit.load('{folder}', env=...).resume()"
    assert said == f"stopped at step 64: go on with {command}"
    resumed = eval(command.replace("...", "env"))
    assert resumed.progress.num_steps == 128


def test_an_error_in_a_callback_is_the_users_own() -> None:
    def fail(progress: object, metrics: object) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        pgtoolkit.train("shac", ID, total_steps=64, callback=fail, **SMALL)
    assert "Last good checkpoint" in caught.value.__notes__[0]


def test_a_loaded_agent_is_as_after_the_last_update() -> None:
    run = pgtoolkit.train("ppo", "CartPole-v1", total_steps=64, **SMALL)
    loaded = pgtoolkit.load(run.directory).agent
    for name, value in run.agent.policy.state_dict().items():
        assert torch.equal(value, loaded.policy.state_dict()[name])


def test_torch_keeps_its_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    pgtoolkit.train("shac", ID, total_steps=64, threads=before, **SMALL)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == before + 1


def test_a_vector_environment_says_the_number_of_environments() -> None:
    """A number that is the configuration's default gives way; another one is a contradiction."""
    env = gymnasium.make_vec("CartPole-v1", num_envs=3)
    run = pgtoolkit.train(PpoConfig(n_steps=8, batch_size=8), env, total_steps=24)
    assert run.config.num_envs == 3
    with pytest.raises(RequestError, match="num_envs is said twice"):
        pgtoolkit.train(PpoConfig(num_envs=4), env)


def test_a_quiet_run_prints_nothing_but_what_the_callback_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And goes on quietly."""

    def callback(progress: Any, metrics: Any) -> None:
        print("an update")

    run = pgtoolkit.train(
        "reinforce",
        "CartPole-v1",
        total_steps=2048,
        run_dir=tmp_path / "run",
        callback=callback,
        quiet=True,
    )
    run.resume(4096, quiet=True)
    printed = capfd.readouterr()
    assert set(printed.out.splitlines()) == {"an update"} and printed.err == ""


def test_the_closing_line_of_an_object_is_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command can make the environment again."""
    env = gymnasium.make("CartPole-v1")
    pgtoolkit.train("reinforce", env, total_steps=2048, run_dir=tmp_path / "run")
    printed = capsys.readouterr().out
    assert "env=...).evaluate()" in printed and "pgtoolkit evaluate" not in printed
