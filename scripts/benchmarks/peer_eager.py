"""The pathwise gradient through Pendulum as a plain PyTorch script, without any tuning."""

import torch
from torch import Tensor, nn

from pgtoolkit.scripts.benchmarks.timing import Run


def pathwise_run(num_envs: int, num_steps: int) -> Run:
    """Gradient of the sum of rewards by the parameters of a 64x64 tanh policy, clip and Adam.

    Args:
        num_envs: ``N``.
        num_steps: the horizon.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    log_std = nn.Parameter(torch.zeros(1))
    parameters = [*network.parameters(), log_std]
    optimizer = torch.optim.Adam(parameters, 3e-3)
    last_state = [(torch.rand(num_envs, 2) * 2 - 1) * torch.tensor([torch.pi, 1.0])]

    def run(index: int) -> None:
        state, total = last_state[0], torch.zeros(num_envs)
        for _ in range(num_steps):
            angle, speed = state.unbind(-1)
            mean = network(torch.stack([torch.cos(angle), torch.sin(angle), speed], -1))
            pre_action = torch.distributions.Normal(mean, log_std.exp().expand_as(mean)).rsample()
            state, reward = _step(state, 2 * torch.tanh(pre_action)[:, 0])
            total = total + reward
        optimizer.zero_grad()
        (-total.mean()).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        last_state[0] = state.detach()

    return run


def _step(state: Tensor, torque: Tensor) -> tuple[Tensor, Tensor]:
    """Next state ``[N, 2]`` and reward ``[N]`` by the equations of Gymnasium's Pendulum-v1."""
    angle, speed = state.unbind(-1)
    wrapped = torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
    reward = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = (speed + (15 * torch.sin(angle) + 3 * torque) * 0.05).clamp(-8, 8)
    return torch.stack([angle + speed * 0.05, speed], -1), reward
