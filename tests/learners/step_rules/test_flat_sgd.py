"""Plain gradient descent on one vector."""

import torch

from pgtoolkit.learners.step_rules.flat_adam import AdamState
from pgtoolkit.learners.step_rules.flat_sgd import FlatSgd


def test_a_step_is_the_gradient_times_the_rate_and_counts() -> None:
    mean, square = torch.tensor([7.0, 8.0]), torch.tensor([9.0, 10.0])
    state = AdamState(torch.tensor([1.0, -2.0]), mean, square, torch.tensor(5.0))
    after, norm = FlatSgd().step(state, torch.tensor([3.0, -4.0]), torch.tensor(0.5))
    assert after.parameters.tolist() == [-0.5, 0.0]
    assert (after.mean, after.square) == (mean, square)
    assert (float(after.steps), float(norm)) == (6.0, 5.0)
