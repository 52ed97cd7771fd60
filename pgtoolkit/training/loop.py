"""The training loop: collect, update, log, evaluate, checkpoint."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Collection
from typing import Annotated, Any, final

import numpy as np
import torch

from pgtoolkit import parallel
from pgtoolkit.agent import Agent, CriticView, Metrics, evaluated_policy
from pgtoolkit.config import Settings, above, at_least, at_most
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.rollouts.evaluation import Evaluation, EvaluationStopped, never
from pgtoolkit.training.action_histograms import action_metrics
from pgtoolkit.training.dashboard import EVAL_SUCCESS, TRAINING_SUCCESS
from pgtoolkit.training.diagnosis import NOTHING, gradient_text, markdown, nothing_text
from pgtoolkit.training.faults.flight_recorder import FlightRecorder
from pgtoolkit.training.history import EVAL_ERROR, watched
from pgtoolkit.training.no_writer import NoWriter
from pgtoolkit.training.progress import Progress, Watch, latest, unwatched
from pgtoolkit.training.run_folder import KEPT_CHECKPOINTS, RunFolder, Which
from pgtoolkit.training.storage.disk import writing
from pgtoolkit.training.trackers.base import TrackerName
from pgtoolkit.training.writer import RunWriter, as_floats

LOG = logging.getLogger("pgtoolkit")

OWN_SCHEDULE_PREFIXES = ("gradient/", "eval/")
"""Prefixes of tags that are logged whenever they are computed, whatever ``log_interval`` is."""

LONGEST_EVAL_INTERVAL, EVALUATIONS = 50_000, 5
"""Environment steps between evaluations, at most, and how many a shorter run has after the first
update, unless the settings say otherwise."""

CUT_OFF_TAG = "eval/cut_off_episodes"

CPU_TAG = "time/cpu_seconds"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Settings of the training loop; they do not depend on the agent."""

    total_steps: Annotated[int, at_least(1)] = 500_000
    """Environment steps to train for: as many whole windows as fit, and at least one."""
    eval_interval: Annotated[int | None, at_least(0)] = None
    """Environment steps between evaluations; 0 never evaluates; default: a fifth of all steps, at
    most 50,000."""
    eval_episodes: Annotated[int | None, at_least(1), at_most(MAX_COUNT)] = None
    """Episodes of each evaluation; default: 100 on batched environments, 20 on others."""
    eval_max_steps: Annotated[int | None, at_least(1), at_most(MAX_COUNT)] = None
    """Steps after which an evaluation episode is cut off and counts with its return so far;
    default: the environment's time limit, or 1,000 where none is known."""
    capture_video: bool = False
    """Write a video of the deterministic policy at each evaluation: as .mp4 into the run's folder,
    and small into TensorBoard. Needs an environment that renders, and the extra `video`."""
    checkpoint_interval: Annotated[int, at_least(1)] = 50_000
    """Environment steps between checkpoints; one is always written at the start and the end."""
    keep_checkpoints: Annotated[int, at_least(1)] = KEPT_CHECKPOINTS
    """Resume files to keep, the newest and those before it; one of these is used where a newer one
    is damaged."""
    checkpoint_minutes: Annotated[float, above(0)] = 5.0
    """Minutes after which a checkpoint is written, whatever the steps."""
    log_interval: Annotated[int, at_least(1)] = 1
    """Updates between rows of rollout, train and time in TensorBoard."""
    track: TrackerName = "none"
    """Tracker that gets every scalar beside TensorBoard: wandb, trackio or mlflow (extras of these
    names). Their environment variables say where to, such as WANDB_MODE=offline."""
    track_project: str | None = None
    """The tracker's project or experiment; default: that of its environment variables, or
    pgtoolkit."""

    @property
    def steps_between_evaluations(self) -> int:
        """``eval_interval``, or its default for the run's length; 0 never evaluates."""
        if self.eval_interval is not None:
            return self.eval_interval
        return min(LONGEST_EVAL_INTERVAL, math.ceil(self.total_steps / EVALUATIONS))


def train(
    agent: Agent,
    config: TrainConfig,
    run: RunFolder,
    writer: RunWriter | NoWriter,
    *,
    evaluate: Callable[[], Evaluation],
    show: Callable[[Progress], None],
    progress: Progress | None = None,
    stop_requested: Callable[[], bool] = never,
    watch: Watch = unwatched,
) -> Progress:
    """Trains an agent for ``config.total_steps`` environment steps.

    Args:
        agent: collects windows and learns from them.
        config: the total number of steps and the intervals.
        run: the folder for checkpoints.
        writer: writes metrics to TensorBoard.
        evaluate: runs evaluation episodes of the agent's current policy. It may raise
            ``EvaluationStopped`` once ``stop_requested`` says so.
        show: displays the progress; called after every update.
        progress: the state of a run that is resumed, whose agent has been loaded.
        stop_requested: asked after every update whether to stop. The run then writes a checkpoint
            and returns. An evaluation that was due is left to the resumed run, which equals one
            that never stopped.
        watch: called after every update, before its checkpoint; True stops the run in the same way.

    Returns:
        The state at the end of the run; not :meth:`Progress.done` if it was stopped.

    Raises:
        NonFiniteError: with notes on the number of environment steps so far and on the file of the
            fault. The last checkpoint remains usable.
        RunFileError: the run folder cannot be written.
    """
    progress = progress or Progress()
    progress.diagnosis.history.settings = setting_names(agent)
    progress.skip_cpu()
    speed = Speed(progress.num_steps)
    recorder = FlightRecorder(agent, run)
    if progress.num_updates == 0:
        _save(agent, progress, run, writer, config)
    saved_at = time.monotonic()
    while not progress.done(config.total_steps):
        if progress.pending is None:
            progress.pending = _update(recorder, config, progress)
        with contextlib.suppress(EvaluationStopped):
            metrics = progress.pending | _evaluate_if_due(
                agent, config, progress, run, evaluate, stop_requested, recorder
            )
            _diagnose(metrics | _rollout_metrics(progress), progress, writer, config)
            recorder.review(metrics, progress)
            progress.count_cpu()
            times = speed.metrics(progress.num_steps) | _cpu_metrics(progress)
            if _log(metrics | times, config, progress, writer):
                speed.mark(progress.num_steps)
            progress.pending = None
        # A watcher sees whole updates: one whose evaluation was stopped is left to a resumed run.
        stopping, overdue = parallel.any_of(
            (progress.pending is None and watch(progress)) or stop_requested(),
            time.monotonic() - saved_at > 60 * config.checkpoint_minutes,
            purpose="stop or save",
        )
        if _checkpoint_is_due(config, progress) or overdue or stopping:
            _save(agent, progress, run, writer, config)
            saved_at = time.monotonic()
        show(progress)
        if stopping:
            break
    return progress


def setting_names(agent: Agent) -> frozenset[str] | None:
    """Names of the settings in an agent's ``config``; None if it has none that can be listed."""
    config: Any = getattr(agent, "config", None)
    known = dataclasses.is_dataclass(config)
    return frozenset(field.name for field in dataclasses.fields(config)) if known else None


def _update(recorder: FlightRecorder, config: TrainConfig, progress: Progress) -> Metrics:
    """Collects a window, learns from it and counts it; returns the update's metrics."""
    window, metrics = recorder.fly(progress)
    progress.count(window)
    if progress.num_updates == 1 and progress.window_steps > config.total_steps:
        LOG.warning(
            "a window has %s environment steps, more than the %s of total_steps: one window is "
            "trained",
            f"{progress.window_steps:,}",
            f"{config.total_steps:,}",
        )
    return metrics


def _checkpoint_is_due(config: TrainConfig, progress: Progress) -> bool:
    """Whether a checkpoint is due by its number of steps; if so, sets when the next one is.

    Checkpoints at a stop and by time leave the schedule as it is, so that they change nothing that
    a later checkpoint holds.
    """
    if progress.pending is not None:
        return False
    if progress.num_steps < progress.next_checkpoint and not progress.done(config.total_steps):
        return False
    progress.next_checkpoint = progress.num_steps + config.checkpoint_interval
    return True


def _log(
    metrics: Metrics, config: TrainConfig, progress: Progress, writer: RunWriter | NoWriter
) -> bool:
    """Writes an update's metrics: all of them every ``log_interval`` updates and at the end.

    Returns:
        Whether it was all of them.
    """
    whole = progress.num_updates % config.log_interval == 0
    whole = whole or progress.finished(config.total_steps)
    if whole:
        metrics = metrics | _rollout_metrics(progress)
    else:
        # Measurements and evaluations are rare and costly, so they are always written.
        # The CPU time is written with each evaluation too, for curves over it.
        evaluated = any(tag.startswith("eval/") for tag in metrics)
        own = (*OWN_SCHEDULE_PREFIXES, *([CPU_TAG] if evaluated else []))
        metrics = {tag: value for tag, value in metrics.items() if tag.startswith(own)}
    progress.scalars = latest(progress.scalars, writer.write(metrics, progress.num_steps))
    return whole


@final
class Speed:
    """Environment steps per second, of the whole run so far and since the last row."""

    def __init__(self, num_steps: int) -> None:
        self.first = self.last = (num_steps, time.perf_counter())

    def metrics(self, num_steps: int) -> Metrics:
        """The two speeds, at this number of environment steps."""
        now = time.perf_counter()
        marks = {"time/fps": self.first, "time/fps_now": self.last}
        return {
            tag: torch.tensor((num_steps - steps) / max(now - time_, 1e-9))
            for tag, (steps, time_) in marks.items()
        }

    def mark(self, num_steps: int) -> None:
        """A row was written at this number of steps."""
        self.last = (num_steps, time.perf_counter())


def _diagnose(
    metrics: Metrics, progress: Progress, writer: RunWriter | NoWriter, config: TrainConfig
) -> None:
    """Reads an update's metrics, whatever ``log_interval`` is; writes the findings as they change.

    They are written once more at the end of the run, with their last numbers.
    """
    diagnosis, finished = progress.diagnosis, progress.finished(config.total_steps)
    before = diagnosis.kinds
    scalars = as_floats({tag: value for tag, value in metrics.items() if watched(tag)})
    diagnosis.observe(scalars, progress.num_steps)
    if finished or diagnosis.kinds != before:
        findings = diagnosis.findings_at_end if finished else diagnosis.findings
        nothing = nothing_text(diagnosis.history) if finished else NOTHING
        text = markdown(findings, gradient_text(diagnosis), nothing)
        writer.write_text("diagnosis", text, progress.num_steps)


def _save(
    agent: Agent,
    progress: Progress,
    run: RunFolder,
    writer: RunWriter | NoWriter,
    config: TrainConfig,
) -> None:
    """Writes the last policy, and the state from which the run can be resumed.

    The events are written first: a checkpoint that knew more than they would leave a gap in them if
    the process died in between.
    """
    writer.flush()
    _save_policy(agent, progress, run, "last")
    progress.count_cpu()
    state = {"agent": agent.state_dict(), "progress": progress.state_dict()}
    if parallel.rank() == 0:
        with writing(run.path):
            run.write_resume(state, config.keep_checkpoints)


def _save_policy(agent: Agent, progress: Progress, run: RunFolder, which: Which) -> None:
    """Writes the policy with its critic, the number of steps and the latest evaluation's return."""
    if parallel.rank() == 0:
        notes = {"num_steps": progress.num_steps, "eval_return": progress.eval_return}
        with writing(run.path):
            state = {"policy": evaluated_policy(agent).state_dict()} | critic_state(agent)
            run.write_policy(which, state | notes)


def critic_state(agent: Agent) -> dict[str, Any]:
    """``{"critic": ...}`` of an agent that has a Q function, as it lies beside the policy."""
    critic = getattr(agent, "critic", None)
    return {"critic": critic.state_dict()} if isinstance(critic, CriticView) else {}


def _evaluate_if_due(
    agent: Agent,
    config: TrainConfig,
    progress: Progress,
    run: RunFolder,
    evaluate: Callable[[], Evaluation],
    stop_requested: Callable[[], bool],
    recorder: FlightRecorder,
) -> Metrics:
    """The metrics of an evaluation, every ``eval_interval`` steps and at the end; else nothing.

    Raises:
        EvaluationStopped: it is due, and the run is to stop.
    """
    due = progress.num_steps >= progress.next_eval or progress.finished(config.total_steps)
    interval = config.steps_between_evaluations
    if not interval or not due:
        return {}
    (stopping,) = parallel.any_of(stop_requested(), purpose="stop before evaluation")
    if stopping:
        raise EvaluationStopped("the run is to stop")
    progress.count_cpu()
    try:
        with recorder.watching("evaluation", progress):
            evaluation = evaluate()
    finally:
        progress.skip_cpu()
    metrics = _take_in(evaluation, agent, progress, run)
    progress.next_eval = progress.num_steps + interval
    return metrics


def _take_in(evaluation: Evaluation, agent: Agent, progress: Progress, run: RunFolder) -> Metrics:
    """Saves the policy if it is the best so far, and returns the metrics of its evaluation."""
    progress.eval_return, progress.eval_steps = evaluation.mean_return, progress.num_steps
    if progress.best_return is None or evaluation.mean_return >= progress.best_return:
        progress.best_return = evaluation.mean_return
        _save_policy(agent, progress, run, "best")
    metrics = {
        "eval/mean_reward": torch.tensor(evaluation.mean_return),
        "eval/mean_ep_length": torch.tensor(evaluation.mean_length),
    }
    if evaluation.standard_error is not None:
        metrics[EVAL_ERROR] = torch.tensor(evaluation.standard_error)
    if evaluation.cut_off or CUT_OFF_TAG in progress.scalars:
        metrics[CUT_OFF_TAG] = torch.tensor(evaluation.cut_off_share)
    if evaluation.success_rate is not None:
        metrics[EVAL_SUCCESS] = torch.tensor(evaluation.success_rate)
    return metrics | ({} if evaluation.actions is None else action_metrics(evaluation.actions))


def _rollout_metrics(progress: Progress) -> Metrics:
    """Means over the recent training episodes; nothing before the first one ends."""
    recent: dict[str, Collection[float]] = {
        "rollout/ep_rew_mean": progress.returns,
        "rollout/ep_len_mean": progress.lengths,
        TRAINING_SUCCESS: progress.successes,
    }
    return {tag: torch.tensor(float(np.mean(list(of)))) for tag, of in recent.items() if of}


def _cpu_metrics(progress: Progress) -> Metrics:
    """The CPU seconds of training so far; nothing in a run that began before they were counted."""
    if progress.cpu_seconds is None:
        return {}
    return {CPU_TAG: torch.tensor(progress.cpu_seconds, dtype=torch.float64)}
