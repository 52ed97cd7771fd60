"""Rows of the table of environments in ``docs/environments.md``."""

from collections.abc import Sequence
from itertools import takewhile

from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.horizon_study import Measurement
from pgtoolkit.scripts.cli.formatting import format_number
from pgtoolkit.scripts.variance_study.arguments import VarianceArguments
from pgtoolkit.scripts.variance_study.decision import Decision, decide
from pgtoolkit.scripts.variance_study.inputs import prepare_inputs
from pgtoolkit.scripts.variance_study.verdict import variance_ratios

HEADINGS = (
    "environment",
    "observations, actions",
    "steps",
    "by action, state, reward",
    "contacts",
    "variance ratio at H = 4, 32",
    "usable horizon",
)


def environment_row(name: str, trajectories: int, seed: int) -> list[str]:
    """Measures one environment and returns its cells under ``HEADINGS``.

    Args:
        name: the environment's id, or path/to/file.py:Class.
        trajectories: number at each horizon.
        seed: seed of the policy's weights, start states and action noise.

    Raises:
        RequestError: there is no such environment, or it is not differentiable.
    """
    env = find_env(name).differentiable
    if env is None:
        raise RequestError(f"{name} has no gradient of its own, so it has no row in this table")
    inputs = prepare_inputs(VarianceArguments(env=name, trajectories=trajectories, seed=seed))
    measured: list[Measurement] = []
    for horizon in inputs.horizons:
        measured += inputs.measure(horizon, estimators=("score_function", "pathwise"))
    return [
        f"`{name}`",
        f"{env.observation_space.shape[0]}, {env.action_space.shape[0]}",
        str(env.max_episode_steps),
        gradient_quality(env.gradient),
        env.gradient.contacts,
        ratio_cell(measured),
        usable_horizon_cell(measured),
    ]


def gradient_quality(info: GradientInfo) -> str:
    """Quality of the derivatives by action, state and reward; one word if all three are equal."""
    found = [info.action, info.state, info.reward]
    return found[0] if len(set(found)) == 1 else ", ".join(found)


def ratio_cell(rows: Sequence[Measurement]) -> str:
    """The score function's variance over pathwise's at H = 4 and 32, those that were measured.

    The shortest horizon stands in for both if neither was measured.
    """
    found = variance_ratios(rows)
    shown = [h for h in (4, 32) if h in found] or list(found)[:1]
    return ", ".join(format_number(1 / found[h], 2) if found[h] else "-" for h in shown) or "-"


def usable_horizon_cell(rows: Sequence[Measurement]) -> str:
    """The longest horizon up to which pathwise is the better estimator, and why no longer."""
    decisions = decide(rows)
    good = [d.horizon for d in takewhile(lambda d: d.choice == "pathwise", decisions)]
    if len(good) == len(decisions):
        return f"{good[-1]}, all that was measured"
    return f"{good[-1] if good else 'none'} ({_objection(decisions[len(good)])})"


def _objection(decision: Decision) -> str:
    """Why pathwise is not the better estimator at this horizon, in a word or two."""
    if decision.choice == "score function":
        return decision.defect or "variance"
    return decision.choice
