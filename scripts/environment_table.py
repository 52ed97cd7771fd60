"""``python scripts/environment_table.py``: what each environment's gradient is worth, in Markdown.

The table of ``docs/environments.md`` is its output: what ``GradientInfo`` says, and up to which
horizon the pathwise gradient of a fresh policy is usable, measured as ``pgtoolkit variance`` does.
"""

import dataclasses
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse

if TYPE_CHECKING:
    from pgtoolkit.envs.differentiable import GradientInfo
    from pgtoolkit.estimators.horizon_study import Measurement

HEADINGS = (
    "environment",
    "observations, actions",
    "steps",
    "by action, state, reward",
    "contacts",
    "variance ratio at H = 4, 32",
    "usable horizon",
)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvironmentTableArguments:
    """Measures up to which horizon each environment's pathwise gradient is usable."""

    envs: tuple[str, ...] = ()
    """Names of environments; default: all of this package."""
    trajectories: int = 1000
    """At each horizon."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        if self.trajectories < 20:
            raise RequestError(f"--trajectories must be at least 20, not {self.trajectories}")


def run(arguments: Sequence[str]) -> None:
    """Prints the table, a row as soon as it is measured.

    Raises:
        RequestError: there is no such environment, or it has no gradient.
    """
    options = parse(EnvironmentTableArguments, arguments, command="environment_table")
    print(line(HEADINGS), line(["---"] * len(HEADINGS)), sep="\n", flush=True)
    for name in options.envs or registered():
        print(line(row(name, options)), flush=True)


def registered() -> list[str]:
    """The ids of this package's environments."""
    import gymnasium

    import pgtoolkit.envs  # noqa: F401  # registers them

    return [name for name, spec in gymnasium.registry.items() if spec.namespace == "pgtoolkit"]


def row(name: str, options: EnvironmentTableArguments) -> list[str]:
    """One environment's cells."""
    from pgtoolkit.envs.registry.resolve import find_env
    from pgtoolkit.estimators.horizon_study import measure_horizon
    from pgtoolkit.scripts.variance_study.arguments import VarianceArguments
    from pgtoolkit.scripts.variance_study.subject import make_subject

    env = find_env(name).differentiable
    if env is None:
        raise RequestError(f"{name} has no gradient of its own, so it has no row in this table")
    question = VarianceArguments(env=name, trajectories=options.trajectories, seed=options.seed)
    subject = make_subject(question)
    measured: list[Measurement] = []
    for horizon in subject.horizons:
        measured += measure_horizon(
            subject.env_for(horizon),
            subject.policy,
            horizon,
            trajectories=options.trajectories,
            estimators=("score_function", "pathwise"),
            gamma=subject.gamma,
            seed=options.seed,
        )
    return [
        f"`{name}`",
        f"{env.observation_space.shape[0]}, {env.action_space.shape[0]}",
        str(env.max_episode_steps),
        qualities(env.gradient),
        env.gradient.contacts,
        ratios(measured),
        usable(measured),
    ]


def qualities(info: "GradientInfo") -> str:
    """``exact, exact, approximate``; once where all are alike."""
    found = [info.action, info.state, info.reward]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def ratios(rows: "Sequence[Measurement]") -> str:
    """The score function's variance over pathwise's, at a short horizon and at SHAC's."""
    from pgtoolkit.scripts.cli.files import short
    from pgtoolkit.scripts.variance_study.verdict import variance_ratios

    found = variance_ratios(rows)
    shown = [h for h in (4, 32) if h in found] or list(found)[:1]
    return ", ".join(short(1 / found[h], 2) if found[h] else "-" for h in shown) or "-"


def usable(rows: "Sequence[Measurement]") -> str:
    """The longest horizon to which pathwise is the one to use, and why no longer."""
    from pgtoolkit.scripts.variance_study.verdict import by_horizon, objection

    score, pathwise = by_horizon(rows, "score_function"), by_horizon(rows, "pathwise")
    against = {h: objection(pathwise[h], score[h]) for h in score}
    good = list(takewhile(lambda h: against[h] is None, against))
    if len(good) == len(against):
        return f"{good[-1]}, all that was measured"
    reason = against[list(against)[len(good)]]
    return f"{good[-1] if good else 'none'} ({reason})"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
