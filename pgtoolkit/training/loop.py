"""The training loop: collect, update, log, evaluate, checkpoint."""

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, final

import numpy as np
import torch

from pgtoolkit import parallel
from pgtoolkit.agent import Agent, Metrics
from pgtoolkit.config import Settings, at_least
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.rollouts.episodes import EpisodeTracker
from pgtoolkit.rollouts.evaluation import Evaluation
from pgtoolkit.rollouts.window import Window
from pgtoolkit.training.checkpoint import save_checkpoint
from pgtoolkit.training.diagnosis import Diagnosis, markdown
from pgtoolkit.training.history import watched
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.writer import RunWriter, as_floats

LOG = logging.getLogger("pgtoolkit")

RECENT_EPISODES = 100
"""Number of training episodes over which returns and lengths are averaged."""

OWN_SCHEDULE_PREFIXES = ("gradient/", "eval/")
"""Prefixes of tags that are logged whenever they are computed, whatever ``log_interval`` is."""

CUT_OFF_TAG = "eval/cut_off_episodes"

PROGRESS_FIELDS = (
    "num_steps",
    "num_updates",
    "window_steps",
    "best_return",
    "eval_return",
    "next_eval",
    "next_checkpoint",
)
"""Fields of :class:`Progress` that are saved as they are."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Settings of the training loop; they do not depend on the agent."""

    total_steps: Annotated[int, at_least(1)] = 500_000
    """Environment steps to train for: as many whole windows as fit, and at least one."""
    eval_interval: Annotated[int, at_least(0)] = 50_000
    """Environment steps between evaluations; 0 never evaluates."""
    eval_episodes: Annotated[int | None, at_least(1)] = None
    """Episodes of each evaluation; default: 100 on batched environments, 20 on others."""
    eval_max_steps: Annotated[int | None, at_least(1)] = None
    """Steps after which an evaluation episode is cut off and counts with its return so far;
    default: the environment's time limit, or 1,000 where none is known."""
    checkpoint_interval: Annotated[int, at_least(1)] = 50_000
    """Environment steps between checkpoints; one is always written at the start and the end."""
    log_interval: Annotated[int, at_least(1)] = 1
    """Updates between rows of rollout, train and time in TensorBoard."""


@final
@dataclasses.dataclass
class Progress:
    """The state of a run: counts, recent episodes, and the latest scalars.

    Attributes:
        num_steps: valid environment steps so far.
        num_updates: updates so far.
        window_steps: valid steps of the latest window.
        best_return: the best evaluation's mean return.
        eval_return: the latest evaluation's mean return.
        next_eval: environment step of the next evaluation.
        next_checkpoint: environment step of the next checkpoint.
        returns: returns of the recent training episodes.
        lengths: lengths of the same episodes.
        tracker: follows episodes across windows; None before the first window.
        scalars: TensorBoard tag to its latest value.
        diagnosis: reads the scalars of every update and says what is wrong.
    """

    num_steps: int = 0
    num_updates: int = 0
    window_steps: int = 1
    best_return: float | None = None
    eval_return: float | None = None
    next_eval: int = 0
    next_checkpoint: int = 0
    returns: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    lengths: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=RECENT_EPISODES))
    tracker: EpisodeTracker | None = None
    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    diagnosis: Diagnosis = dataclasses.field(default_factory=Diagnosis)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the recent training episodes."""
        return float(np.mean(self.returns)) if self.returns else None

    def count(self, window: Window) -> None:
        """Adds the steps of a window and the episodes that ended in it."""
        self.tracker = self.tracker or EpisodeTracker(window.num_envs)
        for _, episode_return, length in self.tracker.update(window):
            self.returns.append(episode_return)
            self.lengths.append(length)
        self.window_steps = int(window.valid.sum())
        self.num_steps += self.window_steps
        self.num_updates += 1

    def finished(self, total_steps: int) -> bool:
        """Whether another window as long as the last would exceed ``total_steps``."""
        return self.num_updates > 0 and self.num_steps + self.window_steps > total_steps

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in PROGRESS_FIELDS} | {
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "diagnosis": self.diagnosis.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in PROGRESS_FIELDS:
            setattr(self, name, state[name])
        self.returns.extend(state["returns"])
        self.lengths.extend(state["lengths"])
        if state["tracker"] is not None:
            self.tracker = EpisodeTracker(len(state["tracker"]["running_return"]))
            self.tracker.load_state_dict(state["tracker"])
        self.diagnosis.load_state_dict(state["diagnosis"])


def train(
    agent: Agent,
    config: TrainConfig,
    run: RunFolder,
    writer: RunWriter,
    *,
    evaluate: Callable[[], Evaluation],
    show: Callable[[Progress], None],
    progress: Progress | None = None,
) -> Progress:
    """Trains an agent for ``config.total_steps`` environment steps.

    Args:
        agent: collects windows and learns from them.
        config: the total number of steps and the intervals.
        run: the folder for checkpoints.
        writer: writes metrics to TensorBoard.
        evaluate: runs evaluation episodes of the agent's current policy.
        show: displays the progress; called after every update.
        progress: the state of a run that is resumed, whose agent has been loaded.

    Returns:
        The state at the end of the run.

    Raises:
        NonFiniteError: with a note on the number of environment steps so far. The last checkpoint
            remains usable.
    """
    progress = progress or Progress()
    first_step, began = progress.num_steps, time.perf_counter()
    if progress.num_updates == 0:
        _save(agent, progress, run)
    while not progress.finished(config.total_steps):
        try:
            window = agent.collect()
            metrics = agent.update(window)
        except NonFiniteError as error:
            error.add_note(f"after {progress.num_steps} environment steps.")
            raise
        progress.count(window)
        if progress.num_updates == 1 and progress.window_steps > config.total_steps:
            LOG.warning(
                "a window has %s environment steps, more than the %s of total_steps: one window is "
                "trained",
                f"{progress.window_steps:,}",
                f"{config.total_steps:,}",
            )
        finished = progress.finished(config.total_steps)
        if config.eval_interval and (progress.num_steps >= progress.next_eval or finished):
            progress.next_eval = progress.num_steps + config.eval_interval
            metrics |= _evaluate(agent, evaluate, progress, run)
        _diagnose(metrics | _rollout_metrics(progress), progress, writer, finished=finished)
        if progress.num_updates % config.log_interval == 0 or finished:
            seconds = time.perf_counter() - began
            metrics |= _rollout_metrics(progress)
            metrics["time/fps"] = torch.tensor((progress.num_steps - first_step) / seconds)
        else:
            # Measurements and evaluations are rare and costly, so they are always written.
            kept = [tag for tag in metrics if tag.startswith(OWN_SCHEDULE_PREFIXES)]
            metrics = {tag: metrics[tag] for tag in kept}
        progress.scalars |= writer.write(metrics, progress.num_steps)
        if progress.num_steps >= progress.next_checkpoint or finished:
            progress.next_checkpoint = progress.num_steps + config.checkpoint_interval
            _save(agent, progress, run)
            writer.flush()
        show(progress)
    return progress


def _diagnose(metrics: Metrics, progress: Progress, writer: RunWriter, *, finished: bool) -> None:
    """Reads an update's metrics, whatever ``log_interval`` is; writes the findings as they change.

    They are written once more at the end of the run, with their last numbers.
    """
    diagnosis = progress.diagnosis
    before = diagnosis.kinds
    scalars = as_floats({tag: value for tag, value in metrics.items() if watched(tag)})
    diagnosis.observe(scalars, progress.num_steps)
    if finished or diagnosis.kinds != before:
        findings = diagnosis.findings_at_end if finished else diagnosis.findings
        writer.write_text("diagnosis", markdown(findings, progress.num_steps), progress.num_steps)


def _save(agent: Agent, progress: Progress, run: RunFolder) -> None:
    """Writes the last policy, and the state from which the run can be resumed."""
    _save_policy(agent, progress, run.policy_file("last"))
    if parallel.rank() == 0:
        state = {"agent": agent.state_dict(), "progress": progress.state_dict()}
        save_checkpoint(run.resume_file, state)


def _save_policy(agent: Agent, progress: Progress, path: Path) -> None:
    """Writes the policy alone, with the number of steps and the latest evaluation's return."""
    if parallel.rank() == 0:
        notes = {"num_steps": progress.num_steps, "eval_return": progress.eval_return}
        save_checkpoint(path, {"policy": agent.policy.state_dict()} | notes)


def _evaluate(
    agent: Agent, evaluate: Callable[[], Evaluation], progress: Progress, run: RunFolder
) -> Metrics:
    """Evaluates the policy, saves it if it is the best so far, and returns the metrics."""
    try:
        evaluation = evaluate()
    except NonFiniteError as error:
        error.add_note(f"in an evaluation, after {progress.num_steps} environment steps.")
        raise
    progress.eval_return = evaluation.mean_return
    if progress.best_return is None or evaluation.mean_return >= progress.best_return:
        progress.best_return = evaluation.mean_return
        _save_policy(agent, progress, run.policy_file("best"))
    metrics = {
        "eval/mean_reward": torch.tensor(evaluation.mean_return),
        "eval/mean_ep_length": torch.tensor(evaluation.mean_length),
    }
    if evaluation.cut_off or CUT_OFF_TAG in progress.scalars:
        metrics[CUT_OFF_TAG] = torch.tensor(evaluation.cut_off_share)
    return metrics


def _rollout_metrics(progress: Progress) -> Metrics:
    """Mean return and length of the recent training episodes; nothing before the first one ends."""
    if not progress.returns:
        return {}
    return {
        "rollout/ep_rew_mean": torch.tensor(float(np.mean(progress.returns))),
        "rollout/ep_len_mean": torch.tensor(float(np.mean(progress.lengths))),
    }
