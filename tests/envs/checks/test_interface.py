"""An environment that computes in float32 only."""

import torch
from torch import Tensor

from pgtoolkit.envs.checks.differentiable import check_differentiable
from pgtoolkit.envs.checks.interface import Float32Env, refuses_double
from pgtoolkit.envs.control.point_mass import PointMass
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.errors import RequestError


class OnlySingle(DifferentiableEnv[Tensor]):
    """A point mass that refuses float64, as a simulator may."""

    gradient = GradientInfo(method="another library")

    def __init__(self) -> None:
        self.inner = PointMass()
        self.observation_space = self.inner.observation_space
        self.action_space = self.inner.action_space
        self.max_episode_steps = 20

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return self.inner.initial(num_envs, generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        if state.dtype != torch.float32:
            raise RequestError("this environment computes in float32: leave float64 out")
        return self.inner.transition(state, action, noise)

    def observation(self, state: Tensor) -> Tensor:
        return self.inner.observation(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.inner.reward(state, action, next_state)

    def terminal(self, state: Tensor) -> Tensor:
        return self.inner.terminal(state)


def test_an_environment_in_float32_alone_is_checked() -> None:
    """An environment that computes in float32 alone has no fault."""
    assert refuses_double(OnlySingle(), 0) and not refuses_double(PointMass(), 0)
    found = check_differentiable(
        OnlySingle(), seed=0, samples=8, seconds=0.3, progress=lambda stage: None
    )
    assert [f for f in found if f.status == "fault"] == []
    agreement = next(f for f in found if f.check == "d transition / d state")
    assert agreement.status == "pass" and "agrees" in agreement.finding
    wrapped = Float32Env(OnlySingle())
    start = wrapped.initial(3, torch.Generator().manual_seed(0))
    after = wrapped.transition(start, torch.zeros(3, 2).double(), None)
    assert isinstance(after, Tensor) and after.dtype == torch.float64
