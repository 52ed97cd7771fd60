from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.envs import GradientGate, Pendulum
from pgtoolkit.envs.checks.at_start import gradient_fault
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from tests.envs.checks.test_differentiable import (
    DetachedReward,
    DetachedTransition,
    ItemInTransition,
    MatrixInDouble,
    OwnGenerator,
    PartlyDetachedReward,
    Raises,
    RoundedToSingle,
    RowsMixed,
    Sound,
    TorchRandomness,
    WrongSignReward,
)

Kind = Callable[[], DifferentiableEnv[Any]]

THREE_STEPS = "d three steps / d first action"


@pytest.mark.parametrize(
    ("kind", "check", "words"),
    [
        (DetachedReward, THREE_STEPS, "cut: detached"),
        (PartlyDetachedReward, THREE_STEPS, "wrong: d sum of rewards"),
        (DetachedTransition, THREE_STEPS, "wrong: d sum of rewards"),
        (ItemInTransition, THREE_STEPS, "wrong: d sum of rewards"),
        (WrongSignReward, THREE_STEPS, "wrong sign"),
        (TorchRandomness, "determinism", "torch.rand"),
        (OwnGenerator, "determinism", "different results"),
        (RowsMixed, "rows", "rows mix"),
    ],
)
def test_a_gradient_that_misleads_is_found(kind: Kind, check: str, words: str) -> None:
    fault = gradient_fault(kind(), seed=0)
    assert fault is not None
    assert fault.check == check
    assert words in fault.finding


@pytest.mark.parametrize("kind", [Sound, MatrixInDouble, RoundedToSingle])
@pytest.mark.parametrize("seed", range(5))
def test_a_right_gradient_is_no_fault_in_either_precision(kind: Kind, seed: int) -> None:
    assert gradient_fault(kind(), seed=seed) is None


def test_what_raises_is_left_to_the_first_step_of_the_run() -> None:
    assert gradient_fault(Raises(), seed=0) is None


def test_what_is_said_openly_is_no_fault() -> None:
    class Honest(DetachedReward):
        gradient = GradientInfo(reward="none")

    assert gradient_fault(Honest(), seed=0) is None


def test_the_environment_inside_of_wrappers_is_checked() -> None:
    """A gate that stops the gradient does so on purpose."""
    assert gradient_fault(GradientGate(Sound(), clip_norm=1e-9), seed=0) is None
    assert gradient_fault(GradientGate(DetachedReward(), clip_norm=10.0), seed=0) is not None


def test_environments_of_this_package_are_left_to_its_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def called(*inputs: Any) -> Any:
        raise AssertionError("the environment was called")

    monkeypatch.setattr(Pendulum, "initial", called)
    assert gradient_fault(Pendulum(), seed=0) is None


def test_the_global_generator_is_as_it_was() -> None:
    class Draws(Sound):
        def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
            return super().reward(state, action, next_state) + torch.rand(len(state))

    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert gradient_fault(Draws(), seed=0) is not None
    assert torch.equal(torch.get_rng_state(), before)
