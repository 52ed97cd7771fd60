"""The sides of the rows that are timed on a card run at a small size, here on the processor."""

import pytest

from pgtoolkit.scripts.benchmarks import on_device, reppo
from pgtoolkit.scripts.benchmarks.timing import OURS
from pgtoolkit.scripts.cli.registry import AGENTS


@pytest.mark.parametrize("row", on_device.SIZES)
def test_our_sides_run(row: str) -> None:
    if row == "reppo" and row not in AGENTS:
        pytest.skip("there is no agent reppo")
    on_device.sides_of(row, on_device.SMALL, "cpu")[OURS]()(0)


def test_jax_sides_run() -> None:
    pytest.importorskip("jax")
    pytest.importorskip("optax")
    for row in on_device.SIZES:
        run = on_device.sides_of(row, on_device.SMALL, "cpu")[on_device.JAX]()
        run(0)
        run(1)


def test_a_row_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours alone, and the reason."""
    monkeypatch.setattr(on_device, "jax_reason", lambda device: "jax is not installed")
    monkeypatch.setattr(on_device, "take_turns", lambda runs, repeats: {OURS: [_Seconds()]})
    found = on_device.measure_row("pathwise", "cpu", small=True)
    expected = {"ours": on_device.SMALL.steps / 2, "jax": None, "ratio": None}
    assert found == expected | {"note": "jax is not installed"}


class _Seconds:
    wall = 2.0


@pytest.mark.parametrize("name", ["ppo", "reppo"])
def test_the_sides_of_the_benchmark_reppo_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With plain loops: compiling takes minutes."""
    if name not in AGENTS:
        pytest.skip(f"there is no agent {name}")
    import gymnasium

    settings = {"num_envs": 2, "n_steps": 4, "n_epochs": 2, "batch_size": 4}
    env = gymnasium.make_vec(reppo.ENV_ID, 2, vectorization_mode="sync")
    run = reppo.agent_run(name, env, **settings, hidden=(8, 8), compile="never")
    run(0)
    run(1)
    env.close()


def test_the_benchmark_reppo_has_a_case_for_each_width() -> None:
    cases = reppo.cases()
    assert [case.targets for case in cases] == [{reppo.PPO: 1.5}] * len(reppo.WIDTHS)
    assert all(case.goal == "at most" for case in cases)
