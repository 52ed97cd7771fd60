"""Adam on one vector is torch's Adam on its parts."""

import pytest
import torch

from pgtoolkit.learners.step_rules.adam import Adam
from pgtoolkit.learners.step_rules.flat_adam import (
    FlatAdam,
    adam_state,
    adam_step,
    clip,
    flatten,
    unflatten,
)


def test_it_is_torchs_adam_with_its_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4,), (1,)]
    parameters = [
        torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes
    ]
    state = adam_state(parameters)
    optimizer = torch.optim.Adam(parameters, 0.1, betas=(0.7, 0.95), eps=1e-5)
    for scale in (0.01, 100.0, 1.0, 3.0):
        for p in parameters:
            p.grad = scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        gradient = flatten([p.grad for p in parameters if p.grad is not None])
        clipped, norm = clip(gradient, 0.5)
        expected = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        torch.testing.assert_close(norm, expected)
        optimizer.step()
        rate = torch.tensor(0.1, dtype=torch.float64)
        state = adam_step(state, clipped, rate, (0.7, 0.95), 1e-5)
        torch.testing.assert_close(state.parameters, flatten(parameters))


def test_a_gradient_within_the_norm_is_left_alone() -> None:
    gradient = torch.tensor([0.3, 0.4])
    clipped, norm = clip(gradient, 1.0)
    assert torch.equal(clipped, gradient) and norm.item() == pytest.approx(0.5)


def test_the_parts_are_views_in_their_order() -> None:
    parts = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), torch.tensor([8.0, 9.0])]
    flat = flatten(parts)
    assert flat.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    found = unflatten(flat, parts)
    assert all(torch.equal(a, b) for a, b in zip(found, parts, strict=True))
    flat.zero_()
    assert all(not bool(x.any()) for x in found)


def test_a_rule_on_a_vector_is_the_rule_on_a_module() -> None:
    """Four steps with the clip, against ``Adam`` of the same settings."""
    generator = torch.Generator().manual_seed(1)
    module = torch.nn.Linear(3, 2).double()
    parameters = list(module.parameters())
    state = adam_state(parameters)
    rule = Adam(module, 0.1, betas=(0.7, 0.95), max_grad_norm=0.5)
    flat_rule = FlatAdam(betas=(0.7, 0.95), epsilon=1e-8, max_grad_norm=0.5)
    rate = torch.tensor(0.1, dtype=torch.float64)
    for number, scale in enumerate((0.01, 100.0, 1.0, 3.0), 1):
        for p in parameters:
            p.grad = scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        gradient = flatten([p.grad for p in parameters if p.grad is not None])
        metrics = rule.step(module)
        state, norm = flat_rule.step(state, gradient, rate)
        torch.testing.assert_close(state.parameters, flatten(parameters))
        torch.testing.assert_close(norm, gradient.norm())
        assert bool(norm > 0.5) == bool(metrics["train/gradient_clipped"])
        assert float(state.steps) == number


def test_a_step_changes_neither_the_state_nor_the_gradient_that_it_was_given() -> None:
    """A new state is returned, so that a failed update can keep the old one."""
    state = adam_state([torch.tensor([1.0, 2.0])])
    gradient = torch.tensor([30.0, 40.0])
    before = [tensor.clone() for tensor in (*state, gradient)]
    rule = FlatAdam(betas=(0.9, 0.999), epsilon=1e-8, max_grad_norm=1.0)
    after, norm = rule.step(state, gradient, torch.tensor(0.25))
    assert all(torch.equal(a, b) for a, b in zip(before, (*state, gradient), strict=True))
    assert float(norm) == 50
    # Adam's first step is one learning rate long in every entry.
    torch.testing.assert_close(after.parameters, torch.tensor([0.75, 1.75]))
