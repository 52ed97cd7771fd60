"""The controller of a policy's entropy, on models of an entropy that answers with a delay."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pgtoolkit.learners.dual_variables import alpha_speed, present_alpha


def test_the_weight_of_the_entropy_does_not_swing() -> None:
    """Where the entropy follows ``log alpha`` with a delay, as it does here, it comes to rest.

    A weight with steps of one length, as Adam has, passes the target again and again.
    """

    def swings(speed: Callable[[Tensor], Tensor]) -> float:
        log_alpha, entropy = torch.tensor(0.0), torch.tensor(2.0)
        seen, delayed = [], []
        for _ in range(4000):
            log_alpha = log_alpha - 0.02 * speed(entropy)
            delayed.append(log_alpha)
            entropy = entropy + 0.05 * (delayed[-50:][0] - entropy)
            seen.append(entropy.item())
        return max(seen[2000:]) - min(seen[2000:])

    assert swings(lambda excess: alpha_speed(excess / 20.0, 1.0)) < 1e-3
    assert swings(torch.sign) > 0.5


ALPHA = torch.tensor(0.3)


@pytest.mark.parametrize(("excess", "factor"), [(0.0, 0), (0.25, -0.5), (-0.1, 0.2), (9, -2)])
def test_the_weight_of_the_entropy_answers_at_once(excess: float, factor: float) -> None:
    """With a gain of two, by two nats for each of the entropy, up to one; without, not at all."""
    found = present_alpha(torch.tensor(0.3), torch.tensor(excess), 2.0)
    assert float(found) == pytest.approx(0.3 * math.exp(factor))
    assert torch.equal(present_alpha(torch.tensor(0.3), torch.tensor(excess), 0.0), ALPHA)


def test_the_answer_at_once_brings_a_slow_entropy_to_rest() -> None:
    """An entropy whose speed follows ``log alpha``, up to a bound, as that of the divergence is.

    The learned part alone then swings without end: it is right only after the entropy has passed.
    """

    def swing(gain: float) -> float:
        learned, entropy, seen = torch.tensor(0.0), torch.tensor(2.0), []
        for _ in range(1500):
            learned = learned - 0.04 * alpha_speed(entropy, 1.0)
            speed = present_alpha(learned.exp(), entropy, gain).log().clamp(-1.0, 1.0)
            entropy = entropy + 0.02 * speed
            seen.append(entropy.item())
        return max(seen[1000:]) - min(seen[1000:])

    assert swing(2.0) < 0.01
    assert swing(0.0) > 0.5
