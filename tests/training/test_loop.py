"""The training loop: when it evaluates, writes and saves, and what a failure leaves behind."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit import parallel
from pgtoolkit.errors import NonFiniteError, RequestError, RunFileError
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.evaluation import Evaluation, EvaluationStopped
from pgtoolkit.rollouts.window import Window
from pgtoolkit.training.checkpoint import load_checkpoint
from pgtoolkit.training.loop import TrainConfig, train
from pgtoolkit.training.progress import Progress, Watch, latest, unwatched
from pgtoolkit.training.run_folder import RunFolder

SPACE = Box(-1.0, 1.0, (1,))


def make_window(num_steps: int = 5, ends: tuple[int, ...] = (4,)) -> Window:
    """Two environments with reward 1 and 2 a step, whose episodes end after the given steps."""
    zeros, done = torch.zeros(num_steps, 2, 1), torch.zeros(num_steps, 2, dtype=torch.bool)
    for step in ends:
        done[step] = True
    return Window(
        obs=zeros,
        next_obs=zeros,
        noise=zeros,
        pre_action=zeros,
        action=zeros,
        log_prob=zeros[..., 0],
        reward=torch.tensor([1.0, 2.0]).expand(num_steps, 2),
        terminated=done,
        truncated=torch.zeros_like(done),
        valid=torch.ones_like(done),
    )


class FakeAgent:
    """Each update adds 1 to the policy's last bias, and reports a measurement every other time."""

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, fails_at: int | None = None, make: Callable[[], Window] = make_window
    ) -> None:
        self.policy = GaussianPolicy(SPACE, SPACE, ())
        self.fails_at, self.make, self.num_updates = fails_at, make, 0

    def collect(self) -> Window:
        return self.make()

    def update(self, window: Window) -> dict[str, Tensor]:
        if self.num_updates == self.fails_at:
            raise NonFiniteError("loss")
        self.num_updates += 1
        with torch.no_grad():
            self.policy.get_parameter("head.output.bias").add_(1.0)
        metrics = {"train/loss": torch.tensor(float(self.num_updates))}
        if self.num_updates % 2:
            metrics["gradient/pathwise/variance"] = torch.tensor(0.5)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_updates = state["num_updates"]


@final
class FakeWriter:
    """Keeps the rows that it is given, by environment step."""

    def __init__(self) -> None:
        self.rows: dict[int, set[str]] = {}
        self.flushed: list[int] = []
        self.texts: dict[int, str] = {}

    def write(self, metrics: dict[str, Tensor], step: int) -> dict[str, float]:
        self.rows[step] = set(metrics)
        return {tag: float(value) for tag, value in metrics.items()}

    def write_text(self, tag: str, text: str, step: int) -> None:
        assert tag == "diagnosis"
        self.texts[step] = text

    def flush(self) -> None:
        self.flushed.append(max(self.rows, default=0))


@final
class Run:
    """One run in a folder, with what happened in it.

    Args:
        path: its folder.
        returns: of each evaluation, in turn.
        agent: the one that is trained.
        progress: of a run that is resumed.
        settings: of the loop; 50 steps in windows of 10, and nothing else by default.
    """

    def __init__(
        self,
        path: Path,
        *,
        returns: tuple[float, ...] = (),
        agent: FakeAgent | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        given = {"total_steps": 50, "eval_interval": 0, "checkpoint_interval": 1000} | settings
        self.folder = RunFolder(path)
        self.folder.policy_file("last").parent.mkdir(parents=True, exist_ok=True)
        self.agent, self.writer = agent or FakeAgent(), FakeWriter()
        self.config, self.progress = TrainConfig(**given), progress
        self.stop_after: int | None = None
        self.watch: Watch = unwatched
        self.remaining, self.evaluated = list(returns), list[int]()
        self.shown: list[tuple[int, int]] = []
        self.saved: dict[int, int | None] = {}

    def evaluate(self) -> Evaluation:
        self.evaluated.append(self.agent.num_updates * 10)
        return Evaluation([self.remaining.pop(0)], [7])

    def show(self, progress: Progress) -> None:
        """Notes which update the files hold, after every update."""
        self.shown.append((progress.num_updates, progress.num_steps))
        self.saved[progress.num_steps] = held(self.folder.policy_file("last"))

    def train(self) -> Progress:
        arguments: dict[str, Any] = {"evaluate": self.evaluate, "show": self.show}
        arguments["stop_requested"] = lambda: self.agent.num_updates == self.stop_after
        arguments["watch"] = self.watch
        writer: Any = self.writer
        return train(
            self.agent, self.config, self.folder, writer, progress=self.progress, **arguments
        )


def held(path: Path) -> int | None:
    """The number of updates of the policy in a file; None where there is no file."""
    if not path.exists():
        return None
    return int(load_checkpoint(path)["policy"]["head.output.bias"])


# Length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "updates"), [(1, 1), (10, 1), (19, 1), (20, 2), (59, 5)])
def test_a_run_is_as_many_whole_windows_as_fit_and_at_least_one(
    tmp_path: Path, total: int, updates: int
) -> None:
    run = Run(tmp_path, total_steps=total)
    assert run.train().num_updates == updates
    assert run.shown == [(n, 10 * n) for n in range(1, updates + 1)]


def test_a_window_of_more_than_all_steps_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows have ten steps."""
    Run(tmp_path, total_steps=9).train()
    assert ["a window has" in record.getMessage() for record in caplog.records] == [True]
    caplog.clear()
    Run(tmp_path, total_steps=10).train()
    assert not caplog.records


def test_only_steps_that_happened_are_counted(tmp_path: Path) -> None:
    """Eight of ten in every window; a sixth would go beyond 45 steps."""

    def make() -> Window:
        window = make_window()
        window.valid[4] = False
        return window

    progress = Run(tmp_path, agent=FakeAgent(make=make), total_steps=45).train()
    assert (progress.num_steps, progress.num_updates) == (40, 5)


# Files --------------------------------------------------------------------------------------------


def test_the_last_policy_is_written_at_the_start_every_interval_and_the_end(
    tmp_path: Path,
) -> None:
    """Interval 20: before the first update, then at 10, 30 and 50; what is in the file after each.

    The events are flushed with each of them, so that a checkpoint never knows more than the log.
    """
    run, at_start = Run(tmp_path, checkpoint_interval=20), []
    collect = run.agent.make

    def first() -> Window:
        at_start.append(held(run.folder.policy_file("last")))
        return collect()

    run.agent.make = first
    run.train()
    assert at_start[0] == 0
    assert run.saved == {10: 1, 20: 1, 30: 3, 40: 3, 50: 5}
    assert run.writer.flushed == [0, 10, 30, 50]


def test_the_files_hold_the_policy_and_all_that_a_resumed_run_needs(tmp_path: Path) -> None:
    run = Run(tmp_path, returns=(4.0,), eval_interval=1000, total_steps=10)
    progress = run.train()
    last = load_checkpoint(run.folder.policy_file("last"))
    assert last.keys() == {"policy", "num_steps", "eval_return"}
    assert last["policy"].keys() == run.agent.policy.state_dict().keys()
    assert (last["num_steps"], last["eval_return"]) == (10, 4.0)
    resume = load_checkpoint(run.folder.resume_file)
    assert resume == {"agent": {"num_updates": 1}, "progress": progress.state_dict()}


def test_the_best_policy_is_that_of_the_best_evaluation_and_the_later_of_two(
    tmp_path: Path,
) -> None:
    """Returns 1, 3, 2, 3, 2: the fourth update's; the last policy is the fifth's."""
    run = Run(tmp_path, returns=(1.0, 3.0, 2.0, 3.0, 2.0), eval_interval=10)
    progress = run.train()
    assert held(run.folder.policy_file("best")) == 4
    assert held(run.folder.policy_file("last")) == 5
    best = load_checkpoint(run.folder.policy_file("best"))
    assert (best["num_steps"], best["eval_return"]) == (40, 3.0)
    assert (progress.best_return, progress.eval_return) == (3.0, 2.0)


def test_without_an_evaluation_there_is_no_best_policy(tmp_path: Path) -> None:
    run = Run(tmp_path, eval_interval=0)
    run.train()
    assert run.evaluated == [] and not run.folder.policy_file("best").exists()
    assert run.folder.saved_policy("best") == run.folder.policy_file("last")


def test_the_share_of_cut_off_episodes_is_logged_once_there_is_one(tmp_path: Path) -> None:
    """None, one of two, none: no tag after the first evaluation, then 0.5 and 0."""
    run = Run(tmp_path, eval_interval=20)
    counts = [0, 1, 0]
    run.evaluate = lambda: Evaluation([1.0, 2.0], [7, 7], counts.pop(0))  # type: ignore[method-assign]
    progress = run.train()
    tag = "eval/cut_off_episodes"
    assert [step for step, tags in run.writer.rows.items() if tag in tags] == [30, 50]
    assert progress.scalars[tag] == 0.0


def test_evaluations_come_every_interval_and_at_the_end(tmp_path: Path) -> None:
    """Interval 30: after the first window, 30 steps later, and after the last window."""
    run = Run(tmp_path, returns=(1.0, 1.0, 1.0), eval_interval=30)
    run.train()
    assert run.evaluated == [10, 40, 50]


def test_only_the_first_process_writes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "rank", lambda: 1)
    run = Run(tmp_path, returns=(1.0,), eval_interval=1000, total_steps=10)
    assert run.train().best_return == 1.0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Logging ------------------------------------------------------------------------------------------


def test_every_update_is_logged_by_default(tmp_path: Path) -> None:
    """The update's own metrics, the recent episodes and the speed."""
    run = Run(tmp_path)
    run.train()
    usual = {"train/loss", "rollout/ep_rew_mean", "rollout/ep_len_mean"}
    usual |= {"time/fps", "time/fps_now", "time/cpu_seconds"}
    measured = usual | {"gradient/pathwise/variance"}
    assert run.writer.rows == {10: measured, 20: usual, 30: measured, 40: usual, 50: measured}


def test_a_log_interval_thins_all_but_measurements_and_evaluations(tmp_path: Path) -> None:
    """Interval 3 with evaluations at 10 and 50: full rows at 30 and at the end."""
    run = Run(tmp_path, returns=(1.0, 1.0), log_interval=3, eval_interval=40)
    run.train()
    measured = {"gradient/pathwise/variance"}
    evaluated = {"eval/mean_reward", "eval/mean_ep_length", "time/cpu_seconds"}
    full = measured | {"train/loss", "rollout/ep_rew_mean", "rollout/ep_len_mean"}
    full |= {"time/fps", "time/fps_now", "time/cpu_seconds"}
    assert run.writer.rows == {
        10: measured | evaluated,
        20: set(),
        30: full,
        40: set(),
        50: full | evaluated,
    }


def test_before_the_first_episode_has_ended_there_is_no_return(tmp_path: Path) -> None:
    run = Run(tmp_path, agent=FakeAgent(make=lambda: make_window(ends=())), total_steps=20)
    progress = run.train()
    assert progress.mean_return is None
    assert not any(tag.startswith("rollout/") for row in run.writer.rows.values() for tag in row)


def test_the_screen_shows_the_latest_of_every_scalar(tmp_path: Path) -> None:
    """A measurement of an earlier update stays; episodes of 5 steps return 5 and 10."""
    progress = Run(tmp_path, total_steps=40).train()
    assert progress.scalars["train/loss"] == 4
    assert progress.scalars["gradient/pathwise/variance"] == 0.5
    assert progress.scalars["rollout/ep_rew_mean"] == progress.mean_return == 7.5
    assert progress.scalars["rollout/ep_len_mean"] == 5


def test_the_latest_scalars_pair_no_values_of_two_measurements() -> None:
    """An interval that the newer measurement does not have is no interval of its variance."""
    first = {"gradient/pathwise/variance": 9e3, "gradient/pathwise/variance_high": 1e4}
    first |= {"gradient/trajectories": 8.0, "gradient/log10_detectable_bias": -1.0}
    first |= {"gradient/critic/cosine": 0.5, "train/loss": 3.0, "eval/mean_reward": 1.0}
    update = {"gradient/overhead": 0.1, "train/std": 1.0}
    found = latest(first, update)
    assert found == first | update
    second = {"gradient/pathwise/variance": 31.5, "gradient/trajectories": 8.0}
    gone = {"gradient/pathwise/variance_high", "gradient/log10_detectable_bias"}
    gone |= {"gradient/overhead"}
    kept = {tag: x for tag, x in found.items() if tag not in gone}
    assert latest(found, second) == kept | second


def test_the_loop_keeps_the_latest_scalars(tmp_path: Path) -> None:
    """The second measurement has no interval."""

    class Once(FakeAgent):
        def update(self, window: Window) -> dict[str, Tensor]:
            metrics = super().update(window)
            if self.num_updates == 2:
                metrics["gradient/pathwise/variance_high"] = torch.tensor(0.7)
            return metrics

    agent = Once()
    short, long = (Run(tmp_path / str(n), agent=agent, total_steps=n) for n in (20, 40))
    assert "gradient/pathwise/variance_high" in short.train().scalars
    agent.num_updates = 0
    assert "gradient/pathwise/variance_high" not in long.train().scalars


def test_the_mean_return_is_of_the_last_hundred_episodes() -> None:
    """60 windows end 120 episodes; a hundred are kept, with lengths."""
    progress = Progress()
    for _ in range(60):
        progress.count(make_window())
    assert (len(progress.returns), len(progress.lengths)) == (100, 100)
    assert progress.mean_return == 7.5


# Diagnosis ----------------------------------------------------------------------------------------


class SaturatedAgent(FakeAgent):
    """All of its actions are at their bounds until the 30th update."""

    def update(self, window: Window) -> dict[str, Tensor]:
        metrics = super().update(window)
        return metrics | {"train/saturated_actions": torch.tensor(float(self.num_updates <= 30))}


@pytest.mark.parametrize("log_interval", [1, 7])
def test_findings_are_written_when_they_begin_and_end_and_at_the_end(
    tmp_path: Path, log_interval: int
) -> None:
    """Whatever is logged: 16 of the last 20 updates, then 10 of them; 400 steps are 40 updates."""
    run = Run(tmp_path, agent=SaturatedAgent(), total_steps=400, log_interval=log_interval)
    progress = run.train()
    assert list(run.writer.texts) == [160, 400]
    assert "100% of the actions have been at their bounds since step 10" in run.writer.texts[160]
    end = run.writer.texts[400]
    begin = "**Gradient:** unproven, while the training returns did not improve (from 7.5 to 7.5): "
    assert end.startswith(f"{begin}pathwise is followed")
    assert "**Diagnosis:**\n\nno rule found a fault, but the training returns did not" in end
    assert progress.diagnosis.findings == []


def test_the_diagnosis_knows_the_agents_settings(tmp_path: Path) -> None:
    """So that its advice names no flag that the agent does not have."""
    agent = FakeAgent()
    assert Run(tmp_path / "1", agent=agent).train().diagnosis.history.settings is None
    agent.config = TrainConfig()  # type: ignore[attr-defined]  # any dataclass
    known = Run(tmp_path / "2", agent=agent).train().diagnosis.history.settings
    assert known is not None and "eval_interval" in known


def test_findings_that_last_are_written_again_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, agent=SaturatedAgent(), total_steps=300)
    progress = run.train()
    assert list(run.writer.texts) == [160, 300] and "since step 10" in run.writer.texts[300]
    assert progress.diagnosis.kinds == ("saturated_actions",)


def test_the_last_evaluation_counts_at_the_end(tmp_path: Path) -> None:
    """Returns 1, 10 and 5: the run ends far below its best."""
    run = Run(tmp_path, returns=(1.0, 10.0, 5.0), eval_interval=20)
    (finding,) = run.train().diagnosis.findings_at_end
    assert (finding.kind, finding.since_step, finding.number) == ("below_best", 50, 5.0)
    assert list(run.writer.texts) == [50] and "5 after 10" in run.writer.texts[50]


def test_a_diagnosis_goes_on_in_a_resumed_run(tmp_path: Path) -> None:
    """Interrupted after 10 updates: the finding is that of the whole run."""
    whole = Run(tmp_path / "a", agent=SaturatedAgent(), total_steps=300).train()
    half = Run(tmp_path / "b", agent=SaturatedAgent(), total_steps=100)
    half.train()
    state, progress = load_checkpoint(half.folder.resume_file), Progress()
    progress.load_state_dict(state["progress"])
    resumed = Run(tmp_path / "b", agent=half.agent, progress=progress, total_steps=300)
    assert resumed.train().diagnosis.state_dict() == whole.diagnosis.state_dict()
    assert list(half.writer.texts) == [100] and list(resumed.writer.texts) == [160, 300]


# Resuming and failing -----------------------------------------------------------------------------


def test_a_resumed_run_ends_like_one_that_was_not_interrupted(tmp_path: Path) -> None:
    """Episodes that run across the interruption included; nothing is written before an update."""
    make = lambda: make_window(ends=(2,))  # noqa: E731
    returns = (1.0, 3.0, 2.0)
    whole = Run(tmp_path / "a", returns=returns, agent=FakeAgent(make=make), eval_interval=20)
    expected = untimed(whole.train().state_dict())
    half = Run(tmp_path / "b", returns=returns, agent=FakeAgent(3, make=make), eval_interval=20)
    half.config = TrainConfig(total_steps=50, eval_interval=20, checkpoint_interval=10)
    with pytest.raises(NonFiniteError):
        half.train()
    state = load_checkpoint(half.folder.resume_file)
    agent, progress = FakeAgent(make=make), Progress()
    agent.load_state_dict(state["agent"])
    agent.policy.load_state_dict(load_checkpoint(half.folder.policy_file("last"))["policy"])
    progress.load_state_dict(state["progress"])
    assert (progress.best_return, progress.eval_return) == (3.0, 3.0)
    resumed = Run(
        tmp_path / "b",
        returns=tuple(half.remaining),
        agent=agent,
        progress=progress,
        eval_interval=20,
    )
    found = untimed(resumed.train().state_dict())
    for state in (found, expected):
        del state["next_checkpoint"]  # the interval is another
    assert found == expected
    assert half.evaluated + resumed.evaluated == whole.evaluated
    for which in ("best", "last"):
        assert held(resumed.folder.policy_file(which)) == held(whole.folder.policy_file(which))


def test_a_resumed_run_that_is_finished_writes_nothing(tmp_path: Path) -> None:
    progress = Run(tmp_path / "a").train()
    run = Run(tmp_path / "b", progress=progress)
    assert run.train() is progress
    assert run.shown == [] and not run.folder.resume_file.exists()


def test_a_failure_says_how_far_the_run_had_come_and_leaves_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    """The fourth update fails after 30 steps; the files are those of step 10."""
    run = Run(tmp_path, agent=FakeAgent(fails_at=3))
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    assert caught.value.__notes__[0] == "in the window that began after 30 environment steps."
    assert "fault-30.json" in caught.value.__notes__[1]
    assert held(run.folder.policy_file("last")) == 1
    assert load_checkpoint(run.folder.resume_file)["progress"]["num_steps"] == 10


def test_a_failure_in_an_evaluation_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path, eval_interval=10)

    def fail() -> Evaluation:
        raise NonFiniteError("action")

    run.evaluate = fail  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError) as caught:
        run.train()
    assert caught.value.__notes__[0] == "in an evaluation after 10 environment steps."
    assert "fault-10.json" in caught.value.__notes__[1]
    assert not run.folder.policy_file("best").exists()


@pytest.mark.parametrize(
    "bad", [{"total_steps": 0}, {"log_interval": 0}, {"checkpoint_interval": 0}]
)
def test_intervals_of_no_length_are_refused(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(RequestError, match=f"^{name} must be at least 1"):
        TrainConfig(**bad)


# Stopping -----------------------------------------------------------------------------------------


def test_a_watcher_sees_every_update_and_stops_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    """It stops at the update after which it says so, and the file holds exactly that state."""
    run, seen = Run(tmp_path, total_steps=100), list[int]()

    def watch(progress: Progress) -> bool:
        seen.append(progress.num_updates)
        return progress.num_updates == 3

    run.watch = watch
    end = run.train()
    assert seen == [1, 2, 3] and end.num_updates == 3 and not end.done(100)
    assert load_checkpoint(run.folder.resume_file)["progress"]["num_updates"] == 3


def resumed(run: Run, **settings: Any) -> Run:
    """The run in a folder, read from its files; its remaining evaluations stay the same."""
    state = load_checkpoint(run.folder.resume_file)
    agent, progress = FakeAgent(make=run.agent.make), Progress()
    agent.load_state_dict(state["agent"])
    policy = load_checkpoint(run.folder.policy_file("last"))["policy"]
    agent.policy.load_state_dict(policy)
    progress.load_state_dict(state["progress"])
    returns = tuple(run.remaining)
    return Run(run.folder.path, returns=returns, agent=agent, progress=progress, **settings)


def untimed(state: dict[str, Any]) -> dict[str, Any]:
    """The saved state of a run's progress without what depends on the clock."""
    assert not any(tag.startswith("time/") for tag in state["scalars"])
    return {name: value for name, value in state.items() if name != "cpu_seconds"}


def test_cpu_seconds_are_those_of_training_and_go_on_over_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which a window takes 2 s, an evaluation 100 s, and all else nothing."""
    clock = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: clock[0])

    def make() -> Window:
        clock[0] += 2.0
        return make_window()

    def evaluate(run: Run) -> Evaluation:
        clock[0] += 100.0
        return Evaluation([1.0], [7])

    monkeypatch.setattr(Run, "evaluate", evaluate)
    first = Run(tmp_path, agent=FakeAgent(make=make), eval_interval=20)
    first.stop_after = 3
    assert first.train().cpu_seconds == 6.0
    clock[0] = 1000.0  # the time before training goes on does not count
    end = resumed(first, eval_interval=20).train()
    assert end.cpu_seconds == 10.0 and end.scalars["time/cpu_seconds"] == 10.0


def test_a_checkpoint_from_before_cpu_seconds_were_counted_is_resumed_without(
    tmp_path: Path,
) -> None:
    first = Run(tmp_path)
    first.stop_after = 2
    first.train()
    second = resumed(first)
    state = second.progress.state_dict() if second.progress else {}
    del state["cpu_seconds"]
    second.progress = Progress()
    second.progress.load_state_dict(state)
    assert second.train().cpu_seconds is None
    assert not any("time/cpu_seconds" in row for row in second.writer.rows.values())


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_a_run_that_was_stopped_and_resumed_ends_like_one_that_was_not(
    tmp_path: Path, stop_after: int
) -> None:
    """Evaluations are due after updates 1, 3 and 5, so one of them is left to the resumed run."""
    settings: dict[str, Any] = {"eval_interval": 20, "checkpoint_interval": 20}
    returns = (1.0, 3.0, 2.0)
    whole = Run(tmp_path / "a", returns=returns, **settings)
    end = whole.train()
    assert end.done(50)
    first = Run(tmp_path / "b", returns=returns, **settings)
    first.stop_after = stop_after
    stopped = first.train()
    assert stopped.num_updates == stop_after and not stopped.done(50)
    assert held(first.folder.policy_file("last")) == stop_after
    second = resumed(first, **settings)
    assert second.train().done(50)
    files = [load_checkpoint(run.folder.resume_file) for run in (whole, second)]
    assert untimed(files[0]["progress"]) == untimed(files[1]["progress"])
    assert files[0]["agent"] == files[1]["agent"]
    assert first.evaluated + second.evaluated == whole.evaluated
    rows = [first.writer.rows, second.writer.rows]
    assert rows[0].keys().isdisjoint(rows[1]) and rows[0] | rows[1] == whole.writer.rows
    assert first.writer.texts | second.writer.texts == whole.writer.texts
    for which in ("best", "last"):
        assert held(second.folder.policy_file(which)) == held(whole.folder.policy_file(which))


def test_an_evaluation_that_is_due_is_left_to_the_resumed_run(tmp_path: Path) -> None:
    """The row of that update is written with it, so events from its step on are void till then."""
    run = Run(tmp_path, returns=(1.0, 2.0), eval_interval=20)
    run.stop_after = 3
    progress = run.train()
    assert run.evaluated == [10] and list(run.writer.rows) == [10, 20]
    assert progress.pending is not None and progress.purge_step == 30
    again = resumed(run, eval_interval=20)
    assert again.progress is not None and again.progress.purge_step == 30
    again.stop_after = 4
    assert again.train().purge_step == 41
    assert again.evaluated == [30] and list(again.writer.rows) == [30, 40]


def test_an_evaluation_may_be_broken_off(tmp_path: Path) -> None:
    """The stop comes while it runs."""
    run = Run(tmp_path, eval_interval=1000, total_steps=10)

    def broken_off() -> Evaluation:
        run.stop_after = 1
        raise EvaluationStopped

    run.evaluate = broken_off  # type: ignore[method-assign]
    assert not run.train().done(10)
    again = resumed(run, eval_interval=1000, total_steps=10)
    again.remaining = [5.0]
    progress = again.train()
    assert progress.done(10) and progress.num_updates == 1 and progress.best_return == 5.0


def test_checkpoints_come_by_time_too_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second passes between two questions for the time: update 3 is saved by time, 4 by steps."""
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    by_steps = Run(tmp_path / "a", checkpoint_interval=30).train()
    run = Run(tmp_path / "b", checkpoint_interval=30, checkpoint_minutes=1.5 / 60)
    by_time = run.train()
    assert run.saved == {10: 1, 20: 1, 30: 3, 40: 4, 50: 5}
    assert untimed(by_steps.state_dict()) == untimed(by_time.state_dict())


def test_a_disk_that_cannot_be_written_is_told_from_an_environment(tmp_path: Path) -> None:
    """Both may raise an OSError."""
    run = Run(tmp_path, checkpoint_interval=10)
    make = run.agent.make

    def fails() -> Window:
        raise OSError("the sensor is gone")

    run.agent.make = fails
    with pytest.raises(OSError, match="sensor"):
        run.train()
    run.agent.make = make
    shutil.rmtree(tmp_path)
    with pytest.raises(RunFileError, match="cannot be written: No such file"):
        run.train()
