"""``python scripts/off_policy_against_sb3.py --json FILE``: SAC or TD3 beside Stable-Baselines3's.

Both train with the same settings, seed by seed, and are evaluated deterministically on the same
episodes. ``--env HalfCheetah-v5 --total-steps 200000 --learning-starts 10000`` is the longer one of
the two comparisons in the documentation.
"""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.benchmarks.off_policy_against_sb3 import (
    OffPolicyArguments,
    train_ours,
    train_sb3,
)
from pgtoolkit.scripts.benchmarks.ppo_against_sb3 import standard_error
from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.cli.files import require_writable, write_json

SIDES = {"pgtoolkit": train_ours, "stable-baselines3": train_sb3}


def run(arguments: Sequence[str]) -> None:
    """Trains what is not in the file yet, and prints the last returns and their difference.

    Raises:
        RequestError: the request is wrong, Stable-Baselines3 is not installed, or the file holds
            results of other settings.
    """
    options = parse(OffPolicyArguments, arguments, command="off_policy_against_sb3")
    torch.set_num_threads(1)
    results = begun(options)
    for seed in range(options.seeds):
        for name, train in SIDES.items():
            if any(one["side"] == name and one["seed"] == seed for one in results["runs"]):
                continue
            curve = train(options, seed)
            results["runs"].append({"side": name, "seed": seed, "curve": curve})
            write_json(options.json, results)
            last = curve[-1]
            print(
                f"{name}, seed {seed}: {last['return']:.1f} in {last['cpu_s']:.0f} CPU s",
                flush=True,
            )
    print(report(results["runs"]))


def settings_of(options: OffPolicyArguments) -> dict[str, Any]:
    """What all runs of a file have in common."""
    kept = dataclasses.asdict(options)
    return {name: value for name, value in kept.items() if name not in ("json", "seeds")}


def begun(options: OffPolicyArguments) -> dict[str, Any]:
    """The results in the file so far.

    Raises:
        RequestError: they are of other settings, or the file cannot be written.
    """
    if not options.json.exists():
        require_writable(options.json, "--json")
        return {"settings": settings_of(options), "runs": []}
    found: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
    if found.get("settings") != settings_of(options):
        raise RequestError(f"{options.json} holds results of other settings: name another file")
    return found


def report(runs: Sequence[dict[str, Any]]) -> str:
    """The mean last return of both sides, and the difference with its standard error."""
    last = {
        name: [one["curve"][-1]["return"] for one in runs if one["side"] == name] for name in SIDES
    }
    errors = {name: standard_error(values) for name, values in last.items()}
    lines = [
        f"{name}: mean {statistics.mean(values):.1f}, standard error {errors[name]:.1f}"
        for name, values in last.items()
    ]
    ours, theirs = (statistics.mean(values) for values in last.values())
    error = math.hypot(*errors.values())
    return "\n".join([*lines, f"difference: {ours - theirs:.1f}, standard error {error:.1f}"])


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
