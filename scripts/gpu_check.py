"""``python scripts/gpu_check.py``: all that needs a card, in less than eight minutes, in one table.

It runs the tests of the marker ``cuda``, and the work of the benchmarks ``pathwise``,
``ppo-native`` and ``reppo`` on the card beside JAX. Each part is a process of its own with a time
limit of its own, so a part that fails or hangs hides no other. ``--dry-run`` does all of it with
small sizes on the processor.

This file imports nothing but the standard library: on a machine that lacks a package it says which,
and the command that installs it.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]

NEEDED = (
    "torch",
    "gymnasium",
    "lazy_loader",
    "numpy",
    "PIL",
    "pytest",
    "rich",
    "scipy",
    "tensorboard",
    "tyro",
    "typing_extensions",
    "yaml",
)
"""Modules without which nothing can be tested."""

INSTALL = 'python -m pip install -c constraints.txt -e ".[test]"'
INSTALL_JAX = 'python -m pip install "jax[cuda12]" optax'

TESTS = {
    "agents": 110,
    "estimators": 40,
    "statistics": 30,
    "environments": 60,
    "training": 40,
    "compiled": 50,
}
"""File ``tests/cuda/test_NAME.py`` to the seconds after which it is stopped."""

ROWS = {"pathwise": 40, "ppo-native": 45, "reppo": 50}
"""Benchmark to the seconds after which it is stopped."""

DRY_RUN_PATIENCE = 4
"""Factor of the time limits on the processor, which may be shared, and where code is compiled."""

WIDTHS = (22, 34, 12, 12, 8, 8)
HEADINGS = ("part", "result", "ours", "JAX", "ratio", "seconds")


@final
class Part(NamedTuple):
    """What one part of the check found."""

    name: str
    passed: bool
    result: str
    """A few words for the table."""
    seconds: float
    ours: float | None = None
    """Environment steps per second of wall time."""
    jax: float | None = None
    ratio: float | None = None
    """Ours over JAX's."""
    output: str = ""
    """The last lines of a part that failed."""


@final
class Ended(NamedTuple):
    """How a process ended."""

    code: int | None
    """None if it was stopped at its time limit."""
    output: str
    seconds: float


Runner = Callable[[Sequence[str], float], Ended]
"""Runs a command with a time limit in seconds."""


def main(arguments: Sequence[str]) -> int:
    """Runs every part, prints the table, and returns the exit code.

    Returns:
        0; 1 if a part failed, which is named; 2 if nothing can be run here.
    """
    options = parse(arguments)
    refusal = refuse(dry_run=options.dry_run)
    if refusal:
        print(refusal, file=sys.stderr)
        return 2
    machine = describe_machine()
    print("\n".join(f"{name}: {value}" for name, value in machine.items()))
    device, patience = ("cpu", DRY_RUN_PATIENCE) if options.dry_run else ("cuda", 1)
    if options.dry_run:
        print("dry run on the processor with small sizes: its speeds mean nothing")
    parts = [
        *(run_tests(name, device, patience * limit, run_command) for name, limit in TESTS.items()),
        *(run_row(name, device, patience * limit, run_command) for name, limit in ROWS.items()),
    ]
    print(table(parts))
    if options.json is not None:
        content = {"machine": machine, "dry_run": options.dry_run}
        content["parts"] = [part._asdict() for part in parts]
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    failed = [part for part in parts if not part.passed]
    for part in failed:
        print(f"\n{part.name} ({part.result}) ended with:\n{part.output}")
    if failed:
        print(f"\nfailed: {', '.join(part.name for part in failed)}")
    return 1 if failed else 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; argparse ends the process with code 2 where one is wrong."""
    parser = argparse.ArgumentParser(prog="gpu_check", description="Tests and times a GPU.")
    parser.add_argument("--dry-run", action="store_true", help="small sizes on the processor")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    if options.json is not None and not options.json.resolve().parent.is_dir():
        parser.error(f"--json {options.json}: there is no such folder")
    return options


def refuse(*, dry_run: bool) -> str:
    """Why nothing can be run here, and what to do; empty if it can."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"not installed: {', '.join(missing)}. In {ROOT}: {INSTALL}\n"
            f"To time JAX beside it, which is optional: {INSTALL_JAX}"
        )
    import torch

    if not dry_run and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} sees no CUDA device: run this where there is one, with a "
            "torch that was built for CUDA, or use --dry-run"
        )
    return ""


def describe_machine() -> dict[str, str]:
    """Device, driver and versions."""
    import torch

    found = {"device": platform.processor() or platform.machine(), "driver": driver()}
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name(0)
    found |= {"CUDA of torch": torch.version.cuda or "none", "python": platform.python_version()}
    packages = ("torch", "triton", "gymnasium", "numpy", "jax", "optax")
    return found | {name: version_of(name) for name in packages}


def driver() -> str:
    """Version of the card's driver."""
    if shutil.which("nvidia-smi") is None:
        return "none found"
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    ended = run_command(command, 20)
    return ended.output.strip().splitlines()[0] if ended.code == 0 else "unknown"


def version_of(package: str) -> str:
    """The installed version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def run_command(command: Sequence[str], limit: float) -> Ended:
    """Runs a process in a checkout that need not be installed; kills it at the limit."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    try:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        )
        code, output = ended.returncode, ended.stdout
    except subprocess.TimeoutExpired as error:
        code, output = None, error.stdout or b""
    return Ended(code, output.decode(errors="replace"), time.perf_counter() - began)


def run_tests(name: str, device: str, limit: float, run: Runner) -> Part:
    """The tests of one file of ``tests/cuda``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-x" if device == "cpu" else "--maxfail=9"]
        command += ["-m", "cuda", f"--device={device}", f"--junitxml={report}"]
        command += ["-p", "no:cacheprovider", f"tests/cuda/test_{name}.py"]
        ended = run(command, limit)
        counts = read_counts(report)
    passed = ended.code == 0 and counts["passed"] > 0 and counts["skipped"] < counts["tests"]
    result = outcome(ended, limit)
    if counts["tests"]:
        result = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n and kind != "tests")
    return Part(
        f"tests: {name}", passed, result, ended.seconds, output="" if passed else tail(ended.output)
    )


def read_counts(report: Path) -> dict[str, int]:
    """Numbers of tests, and of those that passed, failed and were skipped, of a JUnit file."""
    if not report.exists():
        return dict.fromkeys(("tests", "passed", "failed", "skipped"), 0)
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))

    def total(*names: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites for name in names)

    tests, failed, skipped = total("tests"), total("failures", "errors"), total("skipped")
    passed = tests - failed - skipped
    return {"tests": tests, "passed": passed, "failed": failed, "skipped": skipped}


def run_row(name: str, device: str, limit: float, run: Runner) -> Part:
    """One benchmark on the device, ours beside JAX."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        module = "pgtoolkit.scripts.benchmarks.on_device"
        command = [sys.executable, "-m", module, name, f"--device={device}", f"--json={file}"]
        ended = run([*command, *(["--small"] if device == "cpu" else [])], limit)
        found: dict[str, Any] = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        )
    passed = ended.code == 0 and bool(found)
    result = (found.get("note") or "timed") if passed else outcome(ended, limit)
    numbers = {key: found.get(key) for key in ("ours", "jax", "ratio")}
    output = "" if passed else tail(ended.output)
    return Part(f"speed: {name}", passed, result, ended.seconds, **numbers, output=output)


def outcome(ended: Ended, limit: float) -> str:
    """How a process ended, in a few words."""
    if ended.code is None:
        return f"stopped after {limit:.0f} s"
    return f"exit code {ended.code}"


def tail(output: str, lines: int = 30) -> str:
    """The last lines of an output."""
    return "\n".join(output.splitlines()[-lines:])


def table(parts: Sequence[Part]) -> str:
    """One line for each part; speeds in environment steps per second of wall time."""
    rows = [HEADINGS, *(cells(part) for part in parts)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, WIDTHS, strict=True)).rstrip()
        for row in rows
    ]
    total = sum(part.seconds for part in parts)
    return "\n".join(["", *lines, f"{total:.0f} s in all; ours and JAX: environment steps / s"])


def cells(part: Part) -> tuple[str, ...]:
    """The cells of a part's line."""
    result = part.result if part.passed else f"FAILED: {part.result}"
    speeds = ("" if x is None else f"{x:,.0f}" for x in (part.ours, part.jax))
    ratio = "" if part.ratio is None else f"{part.ratio:.2f}"
    return part.name, result, *speeds, ratio, f"{part.seconds:.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
