"""Rows of the table of the verdict's errors in ``docs/estimators.md``."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from pgtoolkit.diagnostics.bias import BIAS_SHARE
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.horizon_study import measure_horizon
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.scripts.cli.files import write_json
from pgtoolkit.scripts.cli.formatting import markdown_row
from pgtoolkit.scripts.tables.verdict_problems import Problem
from pgtoolkit.scripts.variance_study.decision import decide

SAVE_EVERY = 50
"""Seeds between two writings of the file."""

TITLES = (
    "problem",
    "ratio",
    "bias",
    "pathwise",
    "score function",
    "undecided",
    "no gradient",
    "caution",
    "wrong",
    "silent",
    "false alarm",
)


@final
@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the verdict says of one batch."""

    choice: str
    """The decision's choice."""
    alarm: bool
    """Whether pathwise is said to be wrong: biased, or zero where the score function is not."""
    cautioned: bool
    """Whether a bias is said not to be excluded."""


def outcome(problem: Problem, trajectories: int, seed: int) -> Outcome:
    """Measures both estimators on one batch and decides."""
    (decision,) = decide(
        measure_horizon(
            DifferentiableVectorEnv(problem.env, trajectories),
            policy_of(problem),
            problem.horizon,
            trajectories=trajectories,
            estimators=("score_function", "pathwise"),
            gamma=1.0,
            seed=seed,
        )
    )
    return Outcome(decision.choice, decision.defect in ("biased", "zero"), decision.cautioned)


def policy_of(problem: Problem) -> Policy:
    """The policy ``u = mean + sigma eps``."""
    env = problem.env
    log_std = math.log(problem.sigma)
    policy = GaussianPolicy(env.observation_space, env.action_space, (), log_std_init=log_std)
    layer = policy.head.output
    assert isinstance(layer, nn.Linear), "without hidden layers"
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(problem.mean)
    return policy


def is_wrong(problem: Problem, found: Outcome) -> bool:
    """Whether the verdict chooses an estimator that it must not choose, without a caution.

    That is one with the larger variance, either one where there is no difference or no gradient,
    and pathwise where its bias matters.
    """
    if found.choice not in ("pathwise", "score function"):
        return False
    if problem.bias_share >= BIAS_SHARE:
        return found.choice == "pathwise" and not found.cautioned
    if math.isnan(problem.ratio) or abs(problem.ratio - 1) < 1e-6:
        return True
    return found.choice != ("pathwise" if problem.ratio < 1 else "score function")


def is_silent(problem: Problem, found: Outcome) -> bool:
    """Whether a bias that matters is neither found nor cautioned against.

    That no gradient was found is a caution of its own: the score function cannot be told from
    noise.
    """
    warned = found.alarm or found.cautioned or found.choice == "no gradient"
    return problem.bias_share >= BIAS_SHARE and not warned


def is_false_alarm(problem: Problem, found: Outcome) -> bool:
    """Whether pathwise is said to be wrong although it is unbiased."""
    return problem.bias_share == 0 and found.alarm


def study(
    problems: Mapping[str, Callable[[], Problem]], trajectories: int, seeds: int, file: Path | None
) -> dict[str, list[Outcome]]:
    """The outcomes of every problem for seeds 0, 1, ...

    Args:
        problems: as by :func:`problems <pgtoolkit.scripts.tables.verdict_problems.problems>`.
        trajectories: number in each batch.
        seeds: number of batches of each problem.
        file: outcomes are kept in this JSON file; those that it already has are not measured again.

    Raises:
        RequestError: the file is of another number of trajectories, or cannot be written.
    """
    found = _read(file, trajectories)
    for name, make in problems.items():
        problem, done = make(), found.setdefault(name, [])
        for seed in range(len(done), seeds):
            done.append(outcome(problem, trajectories, seed))
            if file is not None and (len(done) % SAVE_EVERY == 0 or len(done) == seeds):
                write_json(file, _content(found, trajectories))
    return {name: found[name][:seeds] for name in problems}


def _read(file: Path | None, trajectories: int) -> dict[str, list[Outcome]]:
    """The outcomes in the file; none if there is no file, or an empty one."""
    if file is None or not file.exists() or file.stat().st_size == 0:
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    if content["trajectories"] != trajectories:
        raise RequestError(
            f"{file} has batches of {content['trajectories']} trajectories, not {trajectories}: "
            "give another file"
        )
    return {name: [Outcome(*row) for row in rows] for name, rows in content["outcomes"].items()}


def _content(found: Mapping[str, Sequence[Outcome]], trajectories: int) -> dict[str, Any]:
    outcomes = {name: [dataclasses.astuple(o) for o in rows] for name, rows in found.items()}
    return {"trajectories": trajectories, "outcomes": outcomes}


def table(
    problems: Mapping[str, Callable[[], Problem]], found: Mapping[str, Sequence[Outcome]]
) -> str:
    """One line for each problem in Markdown: the truth, and shares of the batches in per cent."""
    lines = [markdown_row(TITLES), markdown_row(["---"] * len(TITLES))]
    for name, make in problems.items():
        problem, rows = make(), found[name]
        shares = [
            *(
                [row.choice == choice for row in rows]
                for choice in ("pathwise", "score function", "undecided", "no gradient")
            ),
            [row.cautioned for row in rows],
            [is_wrong(problem, row) for row in rows],
            [is_silent(problem, row) for row in rows],
            [is_false_alarm(problem, row) for row in rows],
        ]
        ratio = "" if math.isnan(problem.ratio) else f"{problem.ratio:.2g}"
        truth = [name, ratio, f"{problem.bias_share:.2g}"]
        lines.append(markdown_row(truth + [f"{100 * sum(s) / len(s):.3g}" for s in shares]))
    return "\n".join(lines)
