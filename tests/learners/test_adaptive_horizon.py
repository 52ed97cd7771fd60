"""The adaptive horizon: what is measured of an adjoint, and one step by hand."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.learners.adaptive_horizon import AdaptiveHorizon, amplification
from pgtoolkit.rollouts.window import Window

GAMMA = 0.9


def window(steps: int, envs: int, ends: Tensor | None = None, *, terminal: bool = False) -> Window:
    """A window whose episodes end where ``ends`` says."""
    zeros, false = torch.zeros(steps, envs, 1), torch.zeros(steps, envs, dtype=torch.bool)
    ends = false if ends is None else ends
    return Window(
        obs=zeros,
        next_obs=zeros,
        noise=zeros,
        pre_action=zeros,
        action=zeros,
        log_prob=zeros[..., 0],
        reward=zeros[..., 0],
        terminated=ends if terminal else false,
        truncated=false if terminal else ends,
        valid=~false,
    )


def amplified(factor: float, steps: int, envs: int = 4) -> Tensor:
    """``dJ/du`` of windows without ends: ``gamma^t factor^d``."""
    time = torch.arange(steps, dtype=torch.float64)
    sizes = GAMMA**time * factor ** (steps - 1 - time)
    return sizes.reshape(-1, 1, 1).expand(steps, envs, 1)


def test_the_adjoint_is_compared_with_that_of_the_end_without_the_discount() -> None:
    found = amplification(amplified(1.5, 5), window(5, 4), GAMMA)
    torch.testing.assert_close(found, 1.5 ** torch.arange(5, dtype=torch.float64))


def test_steps_are_counted_from_their_segments_end_and_discounts_from_its_start() -> None:
    """Episodes of 2 and 3 steps; the adjoint is 1 at an end, 2 and 3 before it."""
    ends = torch.zeros(5, 3, dtype=torch.bool)
    ends[1] = True
    sizes = torch.tensor([2 * 1.0, GAMMA, 3 * 1.0, 2 * GAMMA, GAMMA**2])
    found = amplification(sizes.reshape(5, 1, 1).expand(5, 3, 1), window(5, 3, ends), GAMMA)
    expected = torch.tensor([1.0, 2.0, 3.0, math.nan, math.nan], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_segments_that_end_in_a_terminal_state_are_left_out() -> None:
    """The last adjoint of such a segment is that of one reward alone, here 0.01."""
    ends = torch.zeros(3, 6, dtype=torch.bool)
    ends[-1, :3] = True
    gradient = amplified(1.5, 3, 6).clone()
    gradient[-1, :3] = 0.01
    found = amplification(gradient, window(3, 6, ends, terminal=True), GAMMA)
    torch.testing.assert_close(found, 1.5 ** torch.arange(3, dtype=torch.float64))


def test_an_adjoint_of_zero_at_the_end_measures_nothing() -> None:
    gradient = amplified(1.5, 3).clone()
    gradient[-1] = 0.0
    assert bool(amplification(gradient, window(3, 4), GAMMA).isnan().all())


def horizon(first: int, bound: float = 2.0) -> AdaptiveHorizon:
    return AdaptiveHorizon(first, 2, 40, bound=bound, rate=0.1, length_rate=3.0, damping=0.5)


def test_a_step_by_hand() -> None:
    """``g`` is log(1.5^d / 2): violated by d = 2 and 3; both multipliers were 0.2 before."""
    adaptive = horizon(4)
    adaptive.duals[:4] = 0.2
    adaptive.step(amplified(1.5, 4), window(4, 4), GAMMA)
    excess = [d * math.log(1.5) - math.log(2) for d in range(4)]
    duals = [max(0.0, 0.2 + 0.1 * g) for g in excess]
    weight = sum(max(0.0, phi + 0.5 * g) for phi, g in zip(duals, excess, strict=True))
    expected = torch.tensor(duals, dtype=torch.float64)
    torch.testing.assert_close(adaptive.duals[:4], expected, rtol=1e-5, atol=0)
    assert adaptive.length == pytest.approx(4 + 3 * (1 - weight), rel=1e-5)


def test_without_a_violation_it_grows_by_its_rate() -> None:
    adaptive = horizon(4)
    adaptive.step(amplified(0.9, 4), window(4, 4), GAMMA)
    assert adaptive.length == 7.0


def test_it_halves_at_most_and_stays_within_its_limits() -> None:
    adaptive = horizon(40)
    for expected in (20, 10, 5):
        adaptive.step(amplified(9.0, 40), window(40, 4), GAMMA)
        assert adaptive.steps == expected
    for _ in range(3):
        adaptive.step(amplified(9.0, 40), window(40, 4), GAMMA)
    assert adaptive.steps == 2


def test_what_cannot_be_measured_is_no_violation() -> None:
    """As where all adjoints are 0: the horizon grows."""
    adaptive = horizon(4)
    adaptive.step(torch.zeros(4, 4, 1), window(4, 4), GAMMA)
    assert adaptive.length == 7.0
