"""Variance by sample from two products, against every sample's own gradient."""

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.diagnostics.per_trajectory import per_sample_gradients
from pgtoolkit.diagnostics.sample_variance import sample_variances
from pgtoolkit.errors import RequestError


def networks() -> dict[str, nn.Module]:
    twice = nn.Linear(3, 3)
    return {
        "linear layers": nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)),
        "a wide one without bias": nn.Sequential(nn.Linear(3, 20, bias=False), nn.Linear(20, 1)),
        "a layer norm": nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 1)),
        "a layer that is called twice": nn.Sequential(twice, nn.Tanh(), twice, nn.Linear(3, 1)),
        "a layer without a rule": nn.Sequential(nn.Linear(3, 5), nn.PReLU(), nn.Linear(5, 1)),
    }


@pytest.mark.parametrize("name", networks())
def test_it_is_the_variance_of_the_samples_gradients(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    module = networks()[name].double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)

    def losses() -> Tensor:
        found: Tensor = (module(x).squeeze(-1) - x.sum(1)).square()
        return found

    found = sample_variances(module, losses)
    expected = per_sample_gradients(losses(), dict(module.named_parameters()))
    assert found.keys() == expected.keys()
    for key, gradients in expected.items():
        torch.testing.assert_close(found[key], gradients.var(0), rtol=1e-9, atol=1e-12)


def test_samples_that_agree_have_none() -> None:
    module = nn.Linear(2, 1)
    x = torch.ones(10, 2)
    found = sample_variances(module, lambda: module(x).squeeze(-1).square())
    for variance in found.values():
        assert (variance < 1e-5).all() and (variance >= 0).all()


def test_a_weight_used_outside_its_layer_and_mixed_samples() -> None:
    """The first is measured the general way, the second is refused."""
    layer = torch.nn.Linear(3, 3).double()
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def losses() -> Tensor:
        return torch.nn.functional.linear(torch.tanh(layer(x)), layer.weight).square().sum(-1)

    found = sample_variances(layer, losses)
    values = losses()
    rows = [torch.autograd.grad(value, layer.weight, retain_graph=True)[0] for value in values]
    torch.testing.assert_close(found["weight"], torch.stack(rows).var(0))
    with pytest.raises(RequestError, match="mixes trajectories"):
        sample_variances(layer, lambda: (layer(x) - layer(x).mean(0)).square().sum(-1))
