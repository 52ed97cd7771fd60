"""What changes no bit of a run: ``docs/reliability.md`` lists it, and what does change bits."""

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pgtoolkit.config import CriticSettings
from pgtoolkit.scripts.cli.experiment import RunConfig
from pgtoolkit.scripts.cli.main import dispatch
from pgtoolkit.scripts.cli.registry import AGENTS, load_agent

ROOT = Path(__file__).parents[2]

SHORT = (
    "--num-envs 4 --n-steps 8 --hidden 8 "
    "--total-steps 128 --eval-interval 128 --eval-episodes 1 --eval-max-steps 50"
)

ORDINARY, CONTINUOUS, OURS = "CartPole-v1", "Pendulum-v1", "pgtoolkit/Pendulum-v0"

SAME_IN_ANOTHER_PROCESS = {
    "a process with another hash seed, in another folder": ([], {"PYTHONHASHSEED": "1"}),
    "python -OO -W error": (["-OO", "-W", "error"], {"PYTHONHASHSEED": "2"}),
    "python -X dev": (["-X", "dev"], {}),
}
"""Flags of Python and variables of the environment."""

EVERY_AGENT = """
import sys
from pgtoolkit.scripts.cli.main import dispatch
for line in sys.argv[1:]:
    dispatch("train", line.split())
"""
"""A program that trains one agent for each argument."""


def training(agent: str, folder: Path) -> list[str]:
    """The arguments of ``train``; an agent that needs no gradient takes an ordinary environment."""
    kind, config = load_agent(agent)
    ordinary = CONTINUOUS if issubclass(config, CriticSettings) else ORDINARY
    env = OURS if kind.needs_gradient else ordinary
    return [agent, "--env", env, "--run-dir", str(folder), *SHORT.split()]


def bits(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor of the last policy."""
    with safe_open(folder / "policy" / "last.safetensors", framework="np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def train(agent: str, folder: Path, *flags: str) -> dict[str, bytes]:
    dispatch("train", [*training(agent, folder), *flags])
    return bits(folder)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The bits of every agent's run, one run after the other in this process."""
    folder = tmp_path_factory.mktemp("first")
    return {agent: train(agent, folder / agent) for agent in AGENTS}


def test_a_seed_gives_the_same_bits_after_other_runs_and_another_seed_others(
    first: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    for agent in reversed(AGENTS):
        assert train(agent, tmp_path / agent) == first[agent], agent
    assert train("shac", tmp_path / "other", "--seed", "1") != first["shac"]


@pytest.mark.parametrize("name", SAME_IN_ANOTHER_PROCESS)
def test_another_process_gives_the_same_bits(
    name: str, first: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Hash seed, working directory, optimisation, warnings and development mode change nothing."""
    flags, variables = SAME_IN_ANOTHER_PROCESS[name]
    lines = [" ".join(training(agent, tmp_path / agent)) for agent in AGENTS]
    run_program(flags, variables, lines, tmp_path)
    for agent in AGENTS:
        assert bits(tmp_path / agent) == first[agent], agent


def run_program(
    flags: Sequence[str], variables: dict[str, str], lines: Sequence[str], folder: Path
) -> None:
    """Trains in a new process; one thread, as in the tests."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, *flags, "-c", EVERY_AGENT, *lines]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_thread_gives_the_same_bits_while_tensorboard_reads_the_run(
    first: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    folder, found = tmp_path / "run", []
    worker = threading.Thread(target=lambda: found.append(train("shac", folder)))
    worker.start()
    while worker.is_alive():
        if any(folder.glob("events.*")):
            EventAccumulator(str(folder)).Reload()
        worker.join(0.02)
    assert found == [first["shac"]]


@pytest.mark.skipif(
    "vectorization" not in {field.name for field in dataclasses.fields(RunConfig)},
    reason="no --vectorization",
)
def test_environments_in_workers_give_the_same_bits(
    first: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    for how in ("sync", "async"):
        found = train("reinforce", tmp_path / how, "--vectorization", how)
        assert found == first["reinforce"], how
