"""Runs this package's own side of the benchmarks in two checkouts, in turns, and compares them.

    python scripts/benchmarks/same_speed.py OLD NEW [--names pathwise start] [--turns 5]

OLD and NEW are folders that hold a checkout. In each turn, one process in each folder runs
``pgtoolkit benchmark`` with these names; which of the two goes first alternates. The command prints
the median over the turns of ``seconds in NEW / seconds in OLD`` for each row, with the smallest and
the largest ratio, and the ratio of the smallest times. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("pathwise", "ppo-gym", "diagnostics", "start")


def seconds(folder: Path, names: list[str], repeats: int) -> dict[str, float]:
    """Median CPU seconds of this package's side of each row.

    Raises:
        RuntimeError: the benchmark failed; with what it wrote to standard error.
    """
    with tempfile.TemporaryDirectory() as work:
        output = Path(work) / "rows.json"
        command = [sys.executable, "-m", "pgtoolkit.scripts.cli", "benchmark", *names]
        command += ["--repeats", str(repeats), "--json", str(output)]
        environment = os.environ | {"PYTHONPATH": str(folder.resolve())}
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{folder}:\n{done.stderr}")
        rows = json.loads(output.read_text(encoding="utf-8"))
    found: dict[str, float] = {}
    for number, row in enumerate(row for row in rows if row["ours_cpu_s"]):
        # Numbered: two checkouts may describe a row in other words, so the order matches them.
        name = f"{number:02} {row['benchmark']}: {row['case']} (beside {row['peer']})"
        found[name] = row["ours_cpu_s"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares the speed of two checkouts.")
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--names", nargs="+", default=list(NAMES), help="benchmarks to run")
    parser.add_argument("--turns", type=int, default=5, help="runs of each checkout")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of a row in a run")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    old: list[list[float]] = []
    new: list[list[float]] = []
    names: list[str] = []
    for turn in range(options.turns):
        sides = [(options.old, old), (options.new, new)]
        for folder, kept in sides if turn % 2 == 0 else sides[::-1]:
            found = seconds(folder, options.names, options.repeats)
            kept.append(list(found.values()))
            names = list(found) if folder == options.new else names
        print(f"turn {turn + 1} of {options.turns}", file=sys.stderr, flush=True)
    results = []
    for name, before, after in zip(
        names, zip(*old, strict=True), zip(*new, strict=True), strict=True
    ):
        ratios = [b / a for a, b in zip(before, after, strict=True)]
        median, best = statistics.median(ratios), min(after) / min(before)
        results.append({"row": name, "ratio": median, "ratios": ratios, "of_smallest": best})
        print(
            f"{median:5.3f} ({min(ratios):.3f} to {max(ratios):.3f}; smallest {best:.3f})  {name}"
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
