"""Which rollout an agent gets: plain, checkpointed or compiled."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import gymnasium
import pytest

from pgtoolkit.agents.apg import ApgConfig
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.envs.adapters.gymnasium.simulator import GymnasiumSimulator
from pgtoolkit.envs.adapters.simulation.finite_difference import FiniteDifference
from pgtoolkit.envs.collector import is_compilable, make_rollout
from pgtoolkit.envs.compiled.rollout import CompiledUnroll
from pgtoolkit.envs.control.cart_pole import CartPole
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.action_repeat import ActionRepeat
from pgtoolkit.envs.wrappers.gradient_gate import GradientGate
from pgtoolkit.rollouts.checkpointed import unroll_in_segments
from pgtoolkit.rollouts.rollout import collect, unroll

LONG, SHORT = 100_000_000, 1000


@pytest.fixture(autouse=True)
def _with_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgtoolkit.compiling.has_compiler", lambda: True)


def rollout(total_steps: int, **settings: Any) -> Any:
    env = DifferentiableVectorEnv(Pendulum(), 4)
    given: dict[str, Any] = {"compile": "auto", "checkpoint_every": 0} | settings
    return make_rollout(env, ApgConfig(**given), total_steps=total_steps, gradient=True)


def test_short_runs_are_plain_and_long_ones_compiled_and_it_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        assert rollout(SHORT) is unroll
        assert not caplog.records
        assert isinstance(rollout(LONG), CompiledUnroll)
    assert ["compiling the step" in record.message for record in caplog.records] == [True]


def test_what_the_user_says_goes_before() -> None:
    assert isinstance(rollout(SHORT, compile="always"), CompiledUnroll)
    assert rollout(LONG, compile="never") is unroll


def test_without_a_compiler_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgtoolkit.compiling.has_compiler", lambda: False)
    assert rollout(LONG) is unroll


def test_checkpoints_are_not_compiled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pgtoolkit"):
        found = rollout(LONG, compile="always", checkpoint_every=4)
    assert isinstance(found, functools.partial) and found.func is unroll_in_segments
    assert "not compiled: checkpointed" in caplog.text


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Pendulum, True),
        (CartPole, True),
        (lambda: ActionRepeat(Pendulum(), 2), True),
        (lambda: GradientGate(Pendulum()), False),
        (
            lambda: FiniteDifference(GymnasiumSimulator(lambda: gymnasium.make("Pendulum-v1"))),
            False,
        ),
    ],
)
def test_only_plain_torch_functions_are_compilable(
    make: Callable[[], DifferentiableEnv[Any]], expected: bool
) -> None:
    assert is_compilable(make()) == expected


def test_an_agent_without_gradient_collects_in_a_compiled_loop_where_it_can() -> None:
    native = DifferentiableVectorEnv(Pendulum(), 4)
    auto, always = PpoConfig(compile="auto"), PpoConfig(compile="always")
    found = make_rollout(native, auto, total_steps=LONG, gradient=False)
    assert isinstance(found, CompiledUnroll)
    assert make_rollout(native, auto, total_steps=SHORT, gradient=False) is collect
    other = gymnasium.make_vec("Pendulum-v1", 4, vectorization_mode="sync")
    assert make_rollout(other, always, total_steps=LONG, gradient=False) is collect
