"""Compiled parts on the device: the numbers of the plain ones, or plain ones after a sentence."""

import logging
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.compiling import choose_compiled
from pgtoolkit.envs.compiled.rollout import CompiledUnroll
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.learners.minibatches import GivenModules, Minibatches, Objective
from pgtoolkit.learners.step_rules.flat_adam import FlatAdam
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.rollout import reset, unroll
from pgtoolkit.seeding import stream

pytestmark = pytest.mark.cuda

NUM_ENVS, NUM_STEPS = 6, 5
PLAIN_STEPS = "steps are not compiled, plain ones are taken"
PLAIN_UPDATE = "the update is not compiled, the plain one is used"


class Rows(NamedTuple):
    x: Tensor
    y: Tensor


def test_auto_compiles_for_the_processor_only(device: torch.device) -> None:
    """The seconds that compiled code saves are known there alone."""
    compiled = choose_compiled("auto", 1e9, device)
    assert not compiled or device.type == "cpu"
    assert choose_compiled("always", 0.0, device)
    assert not choose_compiled("never", 1e9, device)


def test_a_compiled_rollout(device: torch.device, caplog: pytest.LogCaptureFixture) -> None:
    """Window and gradient are those of plain steps, which are taken instead after a sentence."""
    found = []
    with caplog.at_level(logging.WARNING, "pgtoolkit"):
        for rollout in (unroll, CompiledUnroll()):
            env = DifferentiableVectorEnv(Pendulum(), NUM_ENVS, device=device)
            policy = GaussianPolicy(env.single_observation_space, env.single_action_space, (8,))
            with torch.no_grad():
                generator = torch.Generator().manual_seed(2)
                for parameter in policy.parameters():
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            policy = policy.to(device)
            start = reset(env, seed=0, device=device)
            noise = policy.draw_noise(NUM_STEPS, NUM_ENVS, generator=stream(0, "noise", device))
            window, _ = rollout(env, policy, start, noise)
            gradient = torch.autograd.grad(window.reward.sum(), list(policy.parameters()))
            found.append([window.obs, window.reward, *gradient])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3)
    said = [record.getMessage() for record in caplog.records]
    assert not said or (len(said) == 1 and said[0].startswith(PLAIN_STEPS))


def test_compiled_minibatches(device: torch.device, caplog: pytest.LogCaptureFixture) -> None:
    """Parameters after six steps on minibatches are those of the plain loop."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(24, 3, generator=generator), torch.randn(4, 3, generator=generator)
    batch = Rows(x.to(device), x.sum(1, keepdim=True).to(device))
    rows = torch.arange(24, device=device).reshape(3, 8).repeat(2, 1)
    ends = []
    with caplog.at_level(logging.WARNING, "pgtoolkit"):
        for compiled in (False, True):
            module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.zero_()
                module[0].weight.copy_(weight)  # type: ignore[operator]
            module = module.to(device)

            def loss(modules: GivenModules, mini: Rows) -> Any:
                return (modules["net"](mini.x) - mini.y).square().mean(), {}

            rule = FlatAdam(betas=(0.9, 0.999), epsilon=1e-8, max_grad_norm=1.0)
            objectives = [Objective({"net": module}, loss, rule)]
            minibatches: Minibatches[Rows] = Minibatches(objectives, compiled=compiled)
            minibatches.run(batch, rows, 0.01)
            ends.append([p.detach().clone() for p in module.parameters()])
            restored: Minibatches[Rows] = Minibatches(objectives)
            state = {name: value.cpu() for name, value in minibatches.state_dict().items()}
            restored.load_state_dict(state)
            assert restored.state.mean.device.type == device.type
    for plain, after in zip(*ends, strict=True):
        torch.testing.assert_close(after, plain, rtol=1e-4, atol=1e-5)
    said = [record.getMessage() for record in caplog.records]
    assert not said or (len(said) == 1 and said[0].startswith(PLAIN_UPDATE))
