"""Commands on each engine: their output, their ends, and what a stop or a loss leaves."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgtoolkit.errors import RequestError, SettingError
from pgtoolkit.scripts.engines.base import Engine, Job, Log, tail
from pgtoolkit.scripts.engines.choose import engine_of
from pgtoolkit.scripts.engines.names import EngineName
from pgtoolkit.training.run_folder import RunFolder

OPTIONS = {
    "local": "{}",
    "slurm": '{"cluster": "local"}',
    "ray": '{"num_cpus": 2, "object_store_memory": 100000000}',
}
PACKAGES = {"local": "pgtoolkit", "slurm": "submitit", "ray": "ray"}
ENDLESS = ["train", "a2c", "--env", "CartPole-v1", "--hidden", "4", "--total-steps", "9000000"]
ENDLESS += ["--eval-interval", "0", "--diagnostics-interval", "0"]


@pytest.fixture(scope="module", params=list(OPTIONS))
def engine(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Engine]:
    name: EngineName = request.param
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"the extra {name} is not installed")
    with engine_of(name, OPTIONS[name], tmp_path_factory.mktemp(name)) as found:
        yield found


def ended(job: Job) -> int | None:
    """The exit code of a command that ends within a minute."""
    until(job.ended)
    return job.wait()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begin(engine: Engine, folder: Path, log: str = "log") -> Job:
    """A training at work that has no end."""
    job = engine.start([*ENDLESS, "--run-dir", str(folder / "run")], folder / log)
    until(lambda: job.log.steps() > 0)
    return job


def steps_of(folder: Path) -> int:
    """Environment steps in the checkpoint."""
    steps: int = RunFolder(folder / "run").read_progress()["num_steps"]
    return steps


def test_a_command_runs_in_the_present_folder_and_its_output_is_kept(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with engine.batch():
        jobs = [engine.start(["list", "agents"], Path(f"log-{k}")) for k in range(2)]
        jobs.append(engine.start(["evaluate", "nowhere"], Path("wrong")))
    assert [ended(job) for job in jobs] == [0, 0, 2]
    for job in jobs[:2]:
        assert "reinforce" in tail(tmp_path / job.log.output)
    assert "nowhere" in jobs[2].log.last_errors()[-1]
    assert engine.places(3) >= 1


def test_a_training_that_is_stopped_has_a_checkpoint(engine: Engine, tmp_path: Path) -> None:
    job = begin(engine, tmp_path)
    job.stop()
    assert ended(job) not in (0, None)
    assert steps_of(tmp_path) > 0
    job.stop()  # which one that has ended does not mind


def test_a_lost_machine_loses_no_run(engine: Engine, tmp_path: Path) -> None:
    """The process that holds the command is killed; the command itself stops as by a signal.

    Started again with the same arguments it goes on from its checkpoint.
    """
    if type(engine).__name__ == "LocalEngine":
        pytest.skip("this process holds it")
    job = begin(engine, tmp_path)
    child = pid_of(f"--run-dir {tmp_path / 'run'}")
    os.kill(int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1]), 9)
    code = ended(job)
    assert code is None or code != 0
    until(lambda: not Path(f"/proc/{child}").exists())
    before = steps_of(tmp_path)
    assert before > 0
    again = begin(engine, tmp_path, "again")
    again.stop()
    ended(again)
    assert f"from step {before}" in tail(tmp_path / "again.out")
    assert steps_of(tmp_path) > before


def pid_of(words: str) -> int:
    """The process with these words in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line and "engines.child" in line:
            return int(path.parent.name)
    raise AssertionError(f"no process has {words}")


def test_a_job_of_slurm_goes_on_after_its_time(tmp_path: Path) -> None:
    """Before the end submitit asks for what to submit anew: that resumes the run."""
    pytest.importorskip("submitit")
    from pgtoolkit.scripts.engines.remote_command import RemoteCommand

    command = RemoteCommand([*ENDLESS, "--run-dir", "run"], Path("log"), tmp_path)
    command._child = command_child(command)
    until(lambda: Log.of(tmp_path / "log").steps() > 0)
    again = command.checkpoint().function
    assert again._going_on() == ["resume", "run"]
    assert steps_of(tmp_path) > 0


def command_child(command: Any) -> Any:
    from pgtoolkit.scripts.engines.local import Child

    return Child.start(command._going_on(), command.folder / command.log, command.folder)


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_missing_package_is_named_with_a_command(
    name: EngineName, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with (
        pytest.raises(SettingError, match="python -m pip install"),
        engine_of(name, "{}", tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("local", '{"cluster": "local"}', "leave them out"),
        ("slurm", "[]", "must be a JSON object"),
        ("slurm", '{"cluster": "local", "timeout_min": "long"}', "submitit refuses"),
        ("slurm", '{"cluster": "local", "colour": "red"}', "no option colour; it has cluster, "),
        ("slurm", '{"clustr": "local"}', r"no option clustr; did you mean cluster\? it has"),
        ("slurm", "{}", "run it where sbatch is"),
        ("ray", '{"colour": "red"}', "Ray refuses"),
    ],
)
def test_wrong_options_are_a_request(
    name: EngineName, options: str, words: str, tmp_path: Path
) -> None:
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"the extra {name} is not installed")
    with pytest.raises(RequestError, match=words), engine_of(name, options, tmp_path):
        pass


def test_a_comparison_has_the_same_results_on_each_engine(tmp_path: Path) -> None:
    """All but times and places, to the bit."""
    flags = ["--env", "CartPole-v1", "--agents", "a2c", "--seeds", "1", "--total-steps", "512"]
    flags += ["--final-episodes", "3", "--eval-episodes", "2", "--set", "hidden=[4]"]
    found = {}
    for name, options in OPTIONS.items():
        if importlib.util.find_spec(PACKAGES[name]) is None:
            continue
        file = tmp_path / f"{name}.json"
        own = ["--engine", name, "--engine-options", options, "--run-dir", str(tmp_path / name)]
        command = [sys.executable, "-m", "pgtoolkit", "compare", *flags, *own]
        done = subprocess.run(
            [*command, "--json", str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found[name] = without_times(json.loads(file.read_text()))
    assert len(found) > 1 or pytest.skip("neither extra is installed")
    assert all(each == found["local"] for each in found.values())


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "cpu" not in k and k not in ("path", "run")}
        return {key: without_times(each) for key, each in kept.items()}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def test_a_signal_stops_a_comparison_on_an_engine(tmp_path: Path) -> None:
    """Its runs have checkpoints, and the same command goes on."""
    pytest.importorskip("submitit")
    flags = ["--env", "CartPole-v1", "--agents", "a2c", "--seeds", "1", "--set", "hidden=[4]"]
    flags += ["--total-steps", "9000000", "--run-dir", str(tmp_path)]
    flags += ["--engine", "slurm", "--engine-options", OPTIONS["slurm"]]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgtoolkit", "compare", *flags],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: any(tail(path) for path in (tmp_path / "logs").glob("*.out")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in said
    (run,) = [path.parent for path in tmp_path.glob("*/resume.safetensors")]
    assert RunFolder(run).read_progress()["num_steps"] >= 0
