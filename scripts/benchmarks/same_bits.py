"""Trains every agent for some updates in two checkouts and compares parameters and metrics.

    python scripts/benchmarks/same_bits.py OLD NEW [--updates 20] [--only REGEX] [--json FILE]

OLD and NEW are folders that hold a checkout. Each case runs in a process of its own, with one
thread, once in each folder. The command prints, for each case, whether all parameters are equal to
the bit, the largest difference if they are not, and the tags of the last update's metrics that
differ. Exit code 0: all cases have the same parameters; 1: some have not.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, final

ENVIRONMENTS = {
    "Pendulum": "Pendulum()",
    "CartPoleSwingUp": "CartPoleSwingUp()",
    "PointMass": "PointMass()",
}
SMALL = "num_envs=16, n_steps=16, diagnostics_interval=5"
AGENTS = {
    "reinforce": ("reinforce", "Reinforce", SMALL),
    "reinforce-episodes": (
        "reinforce",
        "Reinforce",
        "num_envs=6, rollout='episodes', baseline='leave_one_out', advantage='reward_to_go',"
        "diagnostics_interval=5",
    ),
    "apg": ("apg", "Apg", f"compile='never', {SMALL}"),
    "apg-mixed": ("apg", "Apg", f"compile='never', estimator='mixed', {SMALL}"),
    "apg-compiled": ("apg", "Apg", f"compile='always', {SMALL}"),
    "apg-mixture": ("apg", "Apg", f"compile='never', distribution='mixture', {SMALL}"),
    "shac": ("shac", "Shac", f"compile='never', {SMALL}"),
    "shac-mixed": ("shac", "Shac", f"compile='never', estimator='mixed', {SMALL}"),
    "shac-checkpoint": ("shac", "Shac", f"compile='never', checkpoint_every=4, {SMALL}"),
    "shac-compiled": ("shac", "Shac", f"compile='always', {SMALL}"),
    "shac-mixed-compiled": ("shac", "Shac", f"compile='always', estimator='mixed', {SMALL}"),
    "ppo": ("ppo", "Ppo", "num_envs=8, n_steps=64, n_epochs=3, compile='never'"),
    "ppo-compiled": ("ppo", "Ppo", "num_envs=8, n_steps=64, n_epochs=3, compile='always'"),
}
GYMNASIUM = {"CartPole-v1": ("reinforce", "ppo"), "Pendulum-v1": ("reinforce", "ppo")}

CHILD = """
import hashlib, json, sys, torch, gymnasium
torch.set_num_threads(1)
module, name, settings, env, updates, output = sys.argv[1:]
agents = __import__(f"pgtoolkit.agents.{module}", fromlist=["x"])
import pgtoolkit.envs as envs
import pgtoolkit
config = eval(f"agents.{name}Config({settings})")
if env.endswith("()"):
    vector = envs.DifferentiableVectorEnv(eval(f"envs.{env}"), config.num_envs)
else:
    vector = gymnasium.make_vec(env, config.num_envs, vectorization_mode="sync")
agent = getattr(agents, name)(config, vector, seed=3, total_steps=int(updates) * 2000)
for _ in range(int(updates)):
    metrics = agent.update(agent.collect())

def modules(value, depth=0, seen=None):
    seen = set() if seen is None else seen
    if id(value) in seen or depth > 6:
        return
    seen.add(id(value))
    if isinstance(value, torch.nn.Module):
        yield value
    elif type(value).__module__.startswith("pgtoolkit") or isinstance(value, dict):
        for x in (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values():
            yield from modules(x, depth + 1, seen)

parameters = {}
for module in modules(agent):
    for p in module.parameters():
        parameters[id(p)] = p.detach().clone()
def digest(p):
    return hashlib.sha256(p.numpy().tobytes()).hexdigest()
torch.save({
    "where": pgtoolkit.__file__,
    "parameters": sorted(parameters.values(), key=lambda p: (tuple(p.shape), digest(p))),
    "metrics": {k: v.detach().double() for k, v in metrics.items()},
}, output)
"""


def cases() -> list[tuple[str, str, str, str, str]]:
    found = [
        (f"{label} on {env}", *AGENTS[label], made)
        for label in AGENTS
        for env, made in ENVIRONMENTS.items()
    ]
    for env, labels in GYMNASIUM.items():
        found += [(f"{label} on {env}", *AGENTS[label], env) for label in labels]
    return found


def train(folder: Path, case: tuple[str, ...], updates: int, output: Path) -> None:
    """One case in one checkout; the result goes to ``output``.

    Raises:
        RuntimeError: training failed; with what it wrote to standard error.
    """
    environment = os.environ | {"PYTHONPATH": str(folder.resolve())}
    command = [sys.executable, "-c", CHILD, *case[1:], str(updates), str(output)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{case[0]} in {folder}:\n{done.stderr}")


@final
class Comparison(NamedTuple):
    """One case in two checkouts."""

    same: bool
    """Whether all parameters are equal to the bit."""
    apart: float
    """The largest difference of two parameters."""
    metrics: list[str]
    """Tags of the last update whose values differ, or that only one checkout has."""


def compare(old: Path, new: Path) -> Comparison:
    """Compares what :func:`train` wrote in two checkouts."""
    import torch

    before, after = (torch.load(path) for path in (old, new))
    pairs = list(zip(before["parameters"], after["parameters"], strict=False))
    fits = len(before["parameters"]) == len(after["parameters"])
    same = fits and all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
    apart = max((float((a - b).abs().max()) for a, b in pairs if a.shape == b.shape), default=0.0)
    metrics = {
        tag
        for tag in before["metrics"].keys() | after["metrics"].keys()
        if tag != "gradient/overhead"
        and not (
            tag in before["metrics"]
            and tag in after["metrics"]
            and torch.equal(before["metrics"][tag], after["metrics"][tag])
        )
    }
    return Comparison(same, apart, sorted(metrics))


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares two checkouts.")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--only", default="", help="regular expression that a case must contain")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    results: dict[str, Comparison] = {}
    with tempfile.TemporaryDirectory() as work:
        for case in cases():
            if not re.search(options.only, case[0]):
                continue
            outputs = [Path(work) / name for name in ("old.pt", "new.pt")]
            for folder, output in zip((options.old, options.new), outputs, strict=True):
                train(folder, case, options.updates, output)
            found = results[case[0]] = compare(*outputs)
            verdict = "same bits" if found.same else f"differ by {found.apart:.1e}"
            note = f"; metrics differ: {', '.join(found.metrics)}" if found.metrics else ""
            print(f"{case[0]:<40} {verdict}{note}", flush=True)
    if options.json:
        rows = [{"case": name, **found._asdict()} for name, found in results.items()]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0 if all(found.same for found in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
