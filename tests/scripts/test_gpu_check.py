"""``scripts/gpu_check.py``: table, time limits, exit codes, and a machine without packages."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pgtoolkit.scripts import gpu_check
from pgtoolkit.scripts.gpu_check import Ended, Part

ROOT = Path(__file__).parents[2]
REPORT = '<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1"/></testsuites>'


def write_report(command: Sequence[str], limit: float) -> Ended:
    """Ends as pytest does that ran five tests, one of which failed."""
    flag = next(word for word in command if word.startswith("--junitxml="))
    Path(flag.partition("=")[2]).write_text(REPORT, encoding="utf-8")
    return Ended(1, "one\ntwo", 2.0)


def hang(command: Sequence[str], limit: float) -> Ended:
    return Ended(None, "first lines", limit)


def test_the_whole_ends_within_eight_minutes() -> None:
    """The sum of the time limits, with a minute to spare, and every file and row has one."""
    assert sum(gpu_check.TESTS.values()) + sum(gpu_check.ROWS.values()) <= 8 * 60 - 10
    files = {path.stem.removeprefix("test_") for path in (ROOT / "tests/cuda").glob("test_*.py")}
    assert files - {"pretended_device"} == set(gpu_check.TESTS)


def test_the_tests_of_a_file_are_counted() -> None:
    part = gpu_check.run_tests("agents", "cuda", 10, write_report)
    assert not part.passed and part.result == "2 passed, 2 failed, 1 skipped"
    assert part.output == "one\ntwo" and part.name == "tests: agents"


def test_a_part_that_hangs_is_stopped_and_named() -> None:
    parts = [gpu_check.run_tests("agents", "cuda", 7, hang)]
    parts.append(gpu_check.run_row("reppo", "cuda", 9, hang))
    assert [part.result for part in parts] == ["stopped after 7 s", "stopped after 9 s"]
    assert not any(part.passed for part in parts)


def test_a_process_is_killed_at_its_limit() -> None:
    ended = gpu_check.run_command([sys.executable, "-c", "import time; time.sleep(60)"], 0.5)
    assert ended.code is None and ended.seconds < 30


def test_a_row_has_both_speeds() -> None:
    def measure(command: Sequence[str], limit: float) -> Ended:
        flag = next(word for word in command if word.startswith("--json="))
        found = {"ours": 1000.0, "jax": 500.0, "ratio": 2.0, "note": ""}
        Path(flag.partition("=")[2]).write_text(json.dumps(found), encoding="utf-8")
        return Ended(0, "", 1.0)

    part = gpu_check.run_row("reppo", "cuda", 10, measure)
    assert part == Part("speed: reppo", True, "timed", 1.0, 1000.0, 500.0, 2.0)


def test_the_table() -> None:
    """One line for each part; a part without a speed has empty cells, and a failed one says so."""
    parts = [
        Part("tests: agents", False, "1 failed", 12.0, output="..."),
        Part("speed: reppo", True, "timed", 30.0, 123456.0, 61728.0, 2.0),
    ]
    lines = gpu_check.table(parts).splitlines()
    assert lines[1].split() == ["part", "result", "ours", "JAX", "ratio", "seconds"]
    assert lines[2].split() == ["tests:", "agents", "FAILED:", "1", "failed", "12"]
    assert lines[3].split() == ["speed:", "reppo", "timed", "123,456", "61,728", "2.00", "30"]
    assert lines[4].startswith("42 s in all")


@pytest.mark.parametrize("fails", [False, True])
def test_the_json_file_and_the_exit_code(
    fails: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A failing part hides no other; it is named at the end."""

    def part(name: str, device: str, limit: float, run: object) -> Part:
        assert device == "cpu"
        return Part(name, not (fails and name == "agents"), "done", 1.0, output="why")

    monkeypatch.setattr(gpu_check, "run_tests", part)
    monkeypatch.setattr(gpu_check, "run_row", part)
    file = tmp_path / "out.json"
    assert gpu_check.main(["--dry-run", "--json", str(file)]) == int(fails)
    found = json.loads(file.read_text(encoding="utf-8"))
    assert len(found["parts"]) == len(gpu_check.TESTS) + len(gpu_check.ROWS)
    assert found["dry_run"] and {"device", "driver", "torch"} <= found["machine"].keys()
    shown = capsys.readouterr().out
    assert ("failed: agents" in shown) is fails and "device: " in shown


@pytest.mark.parametrize("arguments", [["--what"], ["--json", "/no/such/folder/file.json"]])
def test_a_wrong_option_ends_with_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(arguments)
    assert ended.value.code == 2


def test_without_a_card_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu_check.main([]) == 2
    assert "sees no CUDA device" in capsys.readouterr().err


def test_a_bare_machine_is_told_what_to_install() -> None:
    """Without any package, from a checkout: the command is the README's."""
    code = "import sys, runpy; sys.argv = ['gpu_check']; runpy.run_path({!r}, run_name='__main__')"
    path = str(ROOT / "scripts/gpu_check.py")
    command = [sys.executable, "-I", "-S", "-c", code.format(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.startswith("not installed: torch, gymnasium")
    assert gpu_check.INSTALL in ended.stderr
    assert gpu_check.INSTALL in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_needed_module_is_one_of_this_environment() -> None:
    assert all(importlib.util.find_spec(name) for name in gpu_check.NEEDED)
