"""``scripts/studies/pendulum_optimum.py``: how much of Pendulum-v1's return a discount costs.

It solves the pendulum on a grid by value iteration, for the 200 undiscounted steps of an episode
and for discounts, plays the greedy policies from the same starts, and prints their mean returns.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from pgtoolkit.scripts.cli.arguments import parse, require_options
from pgtoolkit.scripts.cli.formatting import format_number, markdown_row

Array = NDArray[np.float64]

STEPS, DT, MAX_SPEED, MAX_TORQUE = 200, 0.05, 8.0, 2.0
MAX_ITERATIONS = 600


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class PendulumOptimumArguments:
    """Solves Pendulum-v1 on a grid and plays the policies that are greedy for several discounts."""

    gamma: tuple[float, ...] = (0.95, 0.98, 0.99)
    """The discounts."""
    grid: int = 121
    """Points of the grid by angle, and by speed."""
    torques: int = 25
    """Torques between which the policies choose."""
    starts: int = 400
    """Number of starts, drawn as the environment draws them."""
    seed: int = 99
    """Seed of the starts."""

    def __post_init__(self) -> None:
        conditions = {
            "gamma": (all(0 < g < 1 for g in self.gamma), "above 0 and below 1"),
            "grid": (self.grid >= 3, "at least 3"),
            "torques": (self.torques >= 2, "at least 2"),
            "starts": (self.starts >= 1, "at least 1"),
        }
        require_options(self, conditions)


@final
class State(NamedTuple):
    """Angle from the top and speed, arrays of one shape."""

    angle: Array
    speed: Array


def step(state: State, torque: float | Array) -> tuple[State, Array]:
    """The next state and the reward of Gymnasium's Pendulum-v1 (mass, length 1, g 10)."""
    angle = (state.angle + np.pi) % (2 * np.pi) - np.pi
    reward = -(angle**2 + 0.1 * state.speed**2 + 0.001 * np.square(torque))
    speed = state.speed + (15 * np.sin(state.angle) + 3 * np.asarray(torque)) * DT
    speed = np.clip(speed, -MAX_SPEED, MAX_SPEED)
    return State(state.angle + speed * DT, speed), reward


def interpolated(value: Array, state: State) -> Array:
    """The value at states between the grid's points, bilinear, periodic by the angle."""
    size = len(value)
    x = (state.angle + np.pi) % (2 * np.pi) / (2 * np.pi) * size
    y = (state.speed + MAX_SPEED) / (2 * MAX_SPEED) * (size - 1)
    i, j = np.floor(x).astype(int), np.minimum(y.astype(int), size - 2)
    a, b, i, k = x - i, y - j, i % size, (i + 1) % size
    low = (1 - a) * value[i, j] + a * value[k, j]
    high = (1 - a) * value[i, j + 1] + a * value[k, j + 1]
    found: Array = (1 - b) * low + b * high
    return found


def solve(gamma: float, steps: int, grid: int, torques: Array) -> Array:
    """The greatest discounted return of this many steps ``[grid, grid]``, by angle and speed."""
    angle = np.linspace(-np.pi, np.pi, grid, endpoint=False)
    points = State(*np.meshgrid(angle, np.linspace(-MAX_SPEED, MAX_SPEED, grid), indexing="ij"))
    moves = [step(points, torque) for torque in torques]
    value = np.zeros((grid, grid))
    for _ in range(steps):
        value = np.maximum.reduce([r + gamma * interpolated(value, after) for after, r in moves])
    return value


def play(value: Array, gamma: float, start: State, torques: Array) -> Array:
    """The undiscounted returns of an episode with the policy that is greedy for a value."""
    state, total = start, np.zeros_like(start.angle)
    for _ in range(STEPS):
        outcomes = [step(state, torque) for torque in torques]
        q = [reward + gamma * interpolated(value, after) for after, reward in outcomes]
        state, reward = step(state, torques[np.argmax(q, axis=0)])
        total += reward
    return total


def rows(options: PendulumOptimumArguments) -> Iterator[tuple[str, str]]:
    """What was solved, and its mean return over the starts."""
    generator = np.random.default_rng(options.seed)
    start = State(
        generator.uniform(-np.pi, np.pi, options.starts), generator.uniform(-1, 1, options.starts)
    )
    torques = np.linspace(-MAX_TORQUE, MAX_TORQUE, options.torques)
    best = interpolated(solve(1.0, STEPS, options.grid, torques), start)
    yield "the best of 200 undiscounted steps", format_number(best.mean(), 4)
    for gamma in options.gamma:
        value = solve(gamma, min(MAX_ITERATIONS, int(5 / (1 - gamma))), options.grid, torques)
        returns = play(value, gamma, start, torques)
        yield f"greedy with gamma {gamma}", format_number(returns.mean(), 4)


def run(arguments: Sequence[str]) -> None:
    """Prints the table, each row as soon as it is solved."""
    options = parse(PendulumOptimumArguments, arguments, command="studies/pendulum_optimum")
    print(markdown_row(["policy", "mean return"]), "|---|---|", sep="\n", flush=True)
    for cells in rows(options):
        print(markdown_row(cells), flush=True)


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
