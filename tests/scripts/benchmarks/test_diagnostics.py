"""The sides of the ``diagnostics`` benchmark run, and compute the right variances."""

import pytest
import torch

from pgtoolkit.diagnostics.sample_variance import sample_variances
from pgtoolkit.scripts.benchmarks import diagnostics


def test_diagnostics_sides_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides run at a small size."""
    monkeypatch.setattr(diagnostics, "NUM_ENVS", 4)
    monkeypatch.setattr(diagnostics, "NUM_STEPS", 3)
    monkeypatch.setattr(diagnostics, "HIDDEN", (5,))
    for make in (diagnostics.measured_side, diagnostics.plain_side):
        make()(0)


def test_variances_by_sample_are_those_of_one_backward_a_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variances timed against BackPACK equal those of a loop over the samples."""
    monkeypatch.setattr(diagnostics, "NUM_SAMPLES", 5)
    network, inputs, targets = diagnostics.regression()
    gradients = []
    for x, y in zip(inputs, targets, strict=True):
        loss = (network(x) - y).square().sum()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    found = sample_variances(network, lambda: (network(inputs) - targets).square().sum(-1))
    for (name, _), *by_sample in zip(network.named_parameters(), *gradients, strict=True):
        expected = torch.stack(by_sample).var(0)
        assert torch.allclose(found[name], expected, rtol=1e-4, atol=1e-5 * float(expected.max()))
