"""``pgtoolkit benchmark`` on work of no size; nothing here depends on how long it takes."""

import dataclasses
import importlib
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.diagnostics.sample_variance import sample_variances
from pgtoolkit.errors import RequestError
from pgtoolkit.scripts import benchmark
from pgtoolkit.scripts.benchmarks import (
    diagnostics as benchmark_diagnostics,
)
from pgtoolkit.scripts.benchmarks import (
    env_step as benchmark_env_step,
)
from pgtoolkit.scripts.benchmarks import (
    hardware as machine,
)
from pgtoolkit.scripts.benchmarks import (
    pathwise as benchmark_pathwise,
)
from pgtoolkit.scripts.benchmarks import (
    peer_eager,
    timing,
)
from pgtoolkit.scripts.benchmarks import (
    scale as benchmark_scale,
)
from pgtoolkit.scripts.benchmarks import (
    solve as benchmark_solve,
)
from pgtoolkit.scripts.benchmarks import (
    start as benchmark_start,
)
from pgtoolkit.scripts.benchmarks.timing import OURS, Case, Row, Run, Seconds
from pgtoolkit.scripts.cli import registry as tables

KEYS = {"benchmark", "case", "peer", "ratio", "ratio_low", "ratio_high", "target", "reached"}
KEYS |= {"ours_cpu_s", "peer_cpu_s", "ours_wall_s", "peer_wall_s", "throughput", "unit"}
KEYS |= {"repeats", "versions"}


def side() -> Run:
    return lambda index: None


def missing() -> Run:
    raise ModuleNotFoundError("No module named 'peer'", name="peer")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """One benchmark, ``tiny``; the process stays as it is."""
    module = types.ModuleType("tiny_benchmark")
    sides = {OURS: side, "peer": side, "absent": missing}
    missed = Row(case="made up", peer="peer", ratio=0.5, target=2.0, reached=False, unit="MB")
    found = [dataclasses.replace(missed, ours=[1.0], theirs=[2.0])]
    vars(module)["cases"] = lambda: [Case("nothing", 1.0, "units", sides, {"peer": 2.0})]
    vars(module)["rows"] = lambda repeats: found
    # Between two calls of nothing a real clock may not tick at all.
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "process_time", lambda: float(next(ticks)))
    monkeypatch.setitem(sys.modules, "tiny_benchmark", module)
    monkeypatch.setattr(timing, "SHORTEST", 0.0)
    monkeypatch.setattr(benchmark, "BENCHMARKS", {"tiny": ("tiny_benchmark", "no work at all")})
    monkeypatch.setattr(benchmark, "pin", lambda: None)


@pytest.mark.usefixtures("tiny")
def test_rows_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing peers and missed targets are reported, and nothing is raised."""
    file = tmp_path / "rows.json"
    benchmark.run(["tiny", "--repeats", "5", "--json", str(file)])
    timed, absent, made_up = json.loads(file.read_text())
    for row in (timed, absent, made_up):
        assert row.keys() >= KEYS and row["benchmark"] == "tiny"
        assert row["versions"]["torch"] == torch.__version__
    assert timed["repeats"] == 5 and timed["reached"] == (timed["ratio"] >= 2.0)
    assert absent["ratio"] is None and "policy-gradient-toolkit[bench]" in absent["note"]
    assert made_up["reached"] is False
    shown = capsys.readouterr().out
    assert "no work at all" in shown and "missed" in shown and "not installed" in shown


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["tinny"], "did you mean `tiny`"),
        (["tiny", "--repeats", "4"], "--repeats"),
        (["tiny", "--json", "/nowhere/rows.json"], "--json"),
    ],
)
def test_wrong_requests(arguments: list[str], advice: str) -> None:
    """Before anything is timed."""
    with pytest.raises(RequestError, match=advice):
        benchmark.run(arguments)


def test_the_list_has_every_benchmark_and_needs_no_torch() -> None:
    """Names and notes."""
    code = (
        "from pgtoolkit.scripts import benchmark; benchmark.run(['--list']); "
        "import sys; assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert [line.split()[0] for line in found.stdout.splitlines()] == list(tables.BENCHMARKS)


@pytest.mark.parametrize("name", tables.BENCHMARKS)
def test_every_benchmark_has_cases_or_rows(name: str) -> None:
    """Ours comes first, and every target is of a side that there is."""
    module = importlib.import_module(tables.BENCHMARKS[name][0])
    assert hasattr(module, "cases") or hasattr(module, "rows")
    for case in getattr(module, "cases", list)():
        assert next(iter(case.sides)) == OURS and case.work > 0
        assert case.targets.keys() <= case.sides.keys()


def test_the_machine_is_described() -> None:
    """Versions of what is installed, None for the rest."""
    found = machine.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) and found["cpu"]
    assert found["numpy"] == np.__version__
    assert machine.busy(1e6) and not machine.busy(0.0) and not machine.busy(None)


def test_pathwise_sides_run() -> None:
    """Ours, with plain steps here, and the eager script."""
    climb = benchmark_pathwise.climber(3, compile="never")
    climb(4)
    climb(2)
    peer_eager.pathwise_run(3, 4)(0)


def test_env_step_sides_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions in the form that each library takes."""
    monkeypatch.setattr(benchmark_env_step, "NUM_ENVS", 3)
    monkeypatch.setattr(benchmark_env_step, "NUM_STEPS", 4)
    for name in benchmark_env_step.MAKERS:
        benchmark_env_step.plain_side(name)(0)
    benchmark_env_step.gymnasium_side()(0)
    actions = benchmark_env_step.given_actions("CartPole")
    assert actions.shape == (4, 3, 1) and set(np.unique(actions)) <= {-1.0, 1.0}
    assert np.array_equal(2 * benchmark_env_step.discrete(actions) - 1, actions[..., 0])


def test_start_runs_what_it_says(capfd: pytest.CaptureFixture[str]) -> None:
    """The command that the console script runs; its output goes nowhere."""
    code, _ = benchmark_start.WORK["pgtoolkit --help"]
    benchmark_start.side(code)(0)
    assert capfd.readouterr().out == ""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "usage: pgtoolkit COMMAND" in shown


def test_diagnostics_sides_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a small size."""
    monkeypatch.setattr(benchmark_diagnostics, "NUM_ENVS", 4)
    monkeypatch.setattr(benchmark_diagnostics, "NUM_STEPS", 3)
    monkeypatch.setattr(benchmark_diagnostics, "HIDDEN", (5,))
    for make in (benchmark_diagnostics.measured_side, benchmark_diagnostics.plain_side):
        make()(0)


def test_variances_by_sample_are_those_of_one_backward_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is timed against BackPACK is right."""
    monkeypatch.setattr(benchmark_diagnostics, "SAMPLES", 5)
    network, inputs, targets = benchmark_diagnostics.regression()
    gradients = []
    for x, y in zip(inputs, targets, strict=True):
        loss = (network(x) - y).square().sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    found = sample_variances(network, lambda: (network(inputs) - targets).square().sum(-1))
    for (name, _), *by_sample in zip(network.named_parameters(), *gradients, strict=True):
        expected = torch.stack(by_sample).var(0)
        assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-5 * float(expected.max()))


def test_cost_is_compared_with_the_cheapest_so_far() -> None:
    """Seconds of a step: 1, 2 and 3 thousandths of 1000; rows for more than 1024 environments."""
    seconds = {"16": 16.0, "2048": 2 * 2048.0, "4096": 3 * 4096.0}
    samples = {name: [Seconds(x, x)] * 5 for name, x in seconds.items()}
    rows = benchmark_scale.rises("plain", 1, samples)
    assert [row.ratio for row in rows] == [2.0, 3.0]
    assert {row.peer for row in rows} == {"cheapest up to it, N = 16"}
    assert [row.reached for row in rows] == [False, False]


def test_cost_that_falls_does_not_rise() -> None:
    """Thousandths of a step: 9, 3, 2, 2.2: more environments only help, but for the last."""
    thousandths = {"16": 9.0, "2048": 3.0, "4096": 2.0, "8192": 2.2}
    samples = {n: [Seconds(x * int(n), x * int(n))] * 5 for n, x in thousandths.items()}
    rows = benchmark_scale.rises("plain", 1, samples)
    assert [row.ratio for row in rows] == pytest.approx([1.0, 1.0, 1.1])
    assert [row.peer[-4:] for row in rows] == ["2048", "4096", "4096"]


def test_growth_is_a_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory as the root of the horizon has the power 1/2."""
    monkeypatch.setattr(benchmark_scale, "memory", lambda kind, n, h: [n * h**0.5])
    row = benchmark_scale.growth_row("checkpointed", "H", *benchmark_scale.BY_HORIZON)
    assert row.ratio == pytest.approx(0.5) and row.reached is True


@pytest.mark.skipif(not benchmark_scale.REFERENCES.exists(), reason="only Linux counts it")
def test_peak_sees_memory_that_is_freed_again() -> None:
    """64 MB, give or take what else the process does."""

    def work() -> None:
        assert len(b"x" * (64 * 2**20)) == 64 * 2**20

    assert 55 < benchmark_scale.peak(work) < 90


class Made:
    """A learner that is as good as it has steps, in hundreds, up to a best."""

    def __init__(self, best: float) -> None:
        self.best, self.steps = best, 0

    def learn(self) -> int:
        self.steps += 100
        return 100

    def act(self, obs: benchmark_solve.Observations) -> benchmark_solve.Observations:
        return np.full((len(obs), 1), min(self.steps, self.best), np.float32)


def made(best: float) -> Callable[[int], benchmark_solve.Learner]:
    """Its maker."""
    return lambda seed: Made(best)


def test_solving_ends_at_the_bar_or_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every seed of every learner, in turns; failures are told."""

    def judge(
        act: Callable[[benchmark_solve.Observations], benchmark_solve.Observations], seed: int
    ) -> float:
        return float(act(np.zeros((1, 3), np.float32))[0, 0]) - 500.0

    monkeypatch.setattr(benchmark_solve, "evaluate", judge)
    monkeypatch.setattr(benchmark_solve, "MOST_STEPS", 1000)
    makers = {"apg": made(1e9), "ppo": made(100.0), benchmark_solve.PEER: made(1e9)}
    found = benchmark_solve.solve_in_turns(makers, (0, 1))
    assert [run.steps for run in found["apg"]] == [300, 300] and found["apg"][0].solved
    assert [run.steps for run in found["ppo"]] == [1000, 1000] and not found["ppo"][0].solved
    assert "0 of 2 solved" in benchmark_solve.describe(found["ppo"])


def test_our_learners_learn_and_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones; the evaluation is Gymnasium's Pendulum, whose worst return is -16.3 a step."""
    monkeypatch.setattr(benchmark_solve, "PERIOD", 16)
    monkeypatch.setattr(benchmark_solve, "EPISODES", 2)
    monkeypatch.setattr(benchmark_solve, "EPISODE_STEPS", 3)
    apg = ApgConfig(num_envs=4, n_steps=4, hidden=(8,), diagnostics_interval=0)
    learner = benchmark_solve.PathwiseLearner(apg, 0)
    assert learner.learn() == 16
    assert -3 * 16.3 < benchmark_solve.evaluate(learner.act, 0) < 0
