"""One process: every function returns at once and changes nothing."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit import parallel
from pgtoolkit.learners.step_rules.adam import Adam


def test_a_run_is_one_process_that_writes() -> None:
    assert parallel.size() == 1
    assert parallel.rank() == 0


def test_means_and_sums_over_one_process_are_the_tensors_themselves() -> None:
    """The functions work in place, and accept a generator of tensors."""
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor(3)]
    for function in (parallel.mean_, parallel.sum_):
        function(tensor for tensor in tensors)
        assert [tensor.tolist() for tensor in tensors] == [[1.0, 2.0], 3]


def test_the_joined_rows_of_one_process_are_its_own() -> None:
    rows = torch.arange(6.0).view(3, 2)
    assert torch.equal(parallel.gather(rows), rows)


def test_adam_steps_along_the_mean_over_the_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two processes with gradients 1 and 3 are mimicked: the mean, 2, is what is clipped."""
    module = nn.Linear(1, 1, bias=False)
    module.weight.grad = torch.ones(1, 1)

    def mean_with_another(tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            tensor.add_(3).div_(2)

    monkeypatch.setattr(parallel, "mean_", mean_with_another)
    metrics = Adam(module, 0.1, max_grad_norm=1.5).step(module)
    assert float(metrics["train/gradient_clipped"]) == 1
    assert module.weight.grad.item() == pytest.approx(1.5, rel=1e-5)
