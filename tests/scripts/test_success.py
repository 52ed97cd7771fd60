"""The success rate of a task whose infos have ``is_success``, from training to evaluation."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pgtoolkit
from pgtoolkit.scripts.cli import main as cli

TASK = '''
import gymnasium
import numpy as np


class Task(gymnasium.Env):
    """Episodes of 5 steps; the first is a success, the second is not, and so on."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.count += 1
        info = {"is_success": np.float32(self.episode % 2)}
        return np.zeros(2, np.float32), 1.0, False, self.count == 5, info
'''


def test_it_is_logged_shown_and_returned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two environments of 10 episodes each; evaluations of 3 and 1 episodes in one environment."""
    (tmp_path / "task.py").write_text(TASK)
    path, env = tmp_path / "run", f"{tmp_path}/task.py:Task"
    run = pgtoolkit.train(
        "ppo",
        env,
        total_steps=100,
        num_envs=2,
        n_steps=10,
        batch_size=10,
        eval_episodes=4,
        eval_interval=50,
        run_dir=path,
    )
    assert run.metrics["rollout/success_rate"] == 0.5
    closing = f"success:        {run.metrics['eval/success_rate']:.0%} of the last evaluation's"
    assert closing in capsys.readouterr().out
    assert run.evaluate(episodes=1).success_rate == 1.0
    events = EventAccumulator(str(path))
    events.Reload()
    assert [event.value for event in events.Scalars("rollout/success_rate")] == [0.5] * 5
    rates, returns = events.Scalars("eval/success_rate"), events.Scalars("eval/mean_reward")
    assert [event.step for event in rates] == [event.step for event in returns]
    # A resumed run goes on with the same 100 episodes.
    assert run.resume(120).metrics["rollout/success_rate"] == 0.5
    capsys.readouterr()
    command = ["evaluate", str(path), "--episodes", "1", "--json", str(tmp_path / "found.json")]
    with pytest.raises(SystemExit) as ended:
        cli.run_command(lambda found: cli.dispatch("evaluate", found), command[1:])
    assert not ended.value.code
    assert "success rate 100%" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["success_rate"], found["successes"]) == (1.0, [True])
