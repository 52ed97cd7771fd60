"""``python scripts/ppo_against_sb3.py``: compares the returns that two PPO implementations reach.

Our PPO and Stable-Baselines3's train with the same hyperparameters, seed by seed, and are evaluated
deterministically on fresh episodes. A difference of the means within two or three of its standard
errors may be due to chance.
"""

import math
import statistics
from collections.abc import Sequence

import torch

from pgtoolkit.scripts.benchmarks.ppo_against_sb3 import (
    ComparisonArguments,
    standard_error,
    train_ours,
    train_sb3,
)
from pgtoolkit.scripts.cli.arguments import parse


def run(arguments: Sequence[str]) -> None:
    """Trains, evaluates, and prints the returns, their means and the difference.

    Raises:
        RequestError: the request is wrong, or Stable-Baselines3 is not installed.
    """
    options = parse(ComparisonArguments, arguments, command="ppo_against_sb3")
    torch.set_num_threads(1)
    returns: dict[str, list[float]] = {"pgtoolkit": [], "stable-baselines3": []}
    for seed in range(options.seeds):
        returns["pgtoolkit"].append(train_ours(options, seed))
        returns["stable-baselines3"].append(train_sb3(options, seed))
        print(f"seed {seed}: " + ", ".join(f"{k} {v[-1]:.1f}" for k, v in returns.items()))
    means = {name: statistics.mean(found) for name, found in returns.items()}
    errors = {name: standard_error(found) for name, found in returns.items()}
    for name in returns:
        print(f"{name}: mean {means[name]:.1f}, standard error {errors[name]:.1f}")
    ours, theirs = means.values()
    print(f"difference: {ours - theirs:.1f}, standard error {math.hypot(*errors.values()):.1f}")


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
