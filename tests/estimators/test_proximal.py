"""PPO's equations on worked examples, and what they are at a ratio of one."""

import pytest
import torch
from torch import Tensor

from pgtoolkit.estimators.proximal import clipped_surrogate, standardized


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_clip_cuts_gains_and_keeps_losses() -> None:
    # ratio 1.5, 1.5, 0.5, 0.5, 1.1 with c = 0.2:
    # min(1.5 A, 1.2 A): 1.2 for A = 1, -1.5 for A = -1; min(0.5 A, 0.8 A): 0.5, -0.8; 1.1.
    log_prob = torch.log(tensor(1.5, 1.5, 0.5, 0.5, 1.1))
    advantage = tensor(1, -1, 1, -1, 1)
    found = clipped_surrogate(log_prob, torch.zeros_like(log_prob), advantage, 0.2)
    torch.testing.assert_close(found, tensor(1.2, -1.5, 0.5, -0.8, 1.1))


def test_its_gradient_is_zero_beyond_the_clip_and_the_ratio_elsewhere() -> None:
    log_prob = torch.log(tensor(1.5, 1.5, 0.5, 0.5, 1.1)).requires_grad_()
    advantage = tensor(1, -1, 1, -1, 1)
    found = clipped_surrogate(log_prob, torch.zeros_like(advantage), advantage, 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_prob)
    torch.testing.assert_close(gradient, tensor(0.0, -1.5, 0.5, 0.0, 1.1))


def test_at_a_ratio_of_one_it_is_the_score_function() -> None:
    log_prob = tensor(-1.0, -2.0, 0.5).requires_grad_()
    advantage = tensor(2.0, -1.0, 0.3)
    found = clipped_surrogate(log_prob, log_prob.detach(), advantage, 0.2)
    (gradient,) = torch.autograd.grad(found.sum(), log_prob)
    torch.testing.assert_close(gradient, advantage)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="advantage"):
        clipped_surrogate(tensor(0, 0), tensor(0, 0), tensor(1, 1).unsqueeze(1), 0.2)


def test_standardized_advantages() -> None:
    # mean 2, deviations -1, 0, 1, unbiased standard deviation 1.
    torch.testing.assert_close(standardized(tensor(1, 2, 3)), tensor(-1, 0, 1), rtol=0, atol=2e-8)
