"""The training loop: collect, update, log, evaluate, checkpoint."""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, final

import numpy as np
import torch

from pgtoolkit import parallel
from pgtoolkit.agent import Agent, Metrics
from pgtoolkit.config import Settings, at_least, at_most
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.limits import MAX_COUNT
from pgtoolkit.rollouts.evaluation import Evaluation
from pgtoolkit.training.checkpoint import save_checkpoint
from pgtoolkit.training.diagnosis import markdown
from pgtoolkit.training.history import watched
from pgtoolkit.training.progress import Progress
from pgtoolkit.training.run_folder import RunFolder
from pgtoolkit.training.writer import RunWriter, as_floats

LOG = logging.getLogger("pgtoolkit")

OWN_SCHEDULE_PREFIXES = ("gradient/", "eval/")
"""Prefixes of tags that are logged whenever they are computed, whatever ``log_interval`` is."""

CUT_OFF_TAG = "eval/cut_off_episodes"


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Settings of the training loop; they do not depend on the agent."""

    total_steps: Annotated[int, at_least(1)] = 500_000
    """Environment steps to train for: as many whole windows as fit, and at least one."""
    eval_interval: Annotated[int, at_least(0)] = 50_000
    """Environment steps between evaluations; 0 never evaluates."""
    eval_episodes: Annotated[int | None, at_least(1), at_most(MAX_COUNT)] = None
    """Episodes of each evaluation; default: 100 on batched environments, 20 on others."""
    eval_max_steps: Annotated[int | None, at_least(1), at_most(MAX_COUNT)] = None
    """Steps after which an evaluation episode is cut off and counts with its return so far;
    default: the environment's time limit, or 1,000 where none is known."""
    checkpoint_interval: Annotated[int, at_least(1)] = 50_000
    """Environment steps between checkpoints; one is always written at the start and the end."""
    log_interval: Annotated[int, at_least(1)] = 1
    """Updates between rows of rollout, train and time in TensorBoard."""


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
