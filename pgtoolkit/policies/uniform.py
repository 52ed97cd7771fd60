"""A policy that ignores its observation: uniformly random actions, to begin with."""

import copy
from typing import final

from torch import Tensor, nn

from pgtoolkit.distributions.noise import Noise
from pgtoolkit.distributions.uniform import Uniform
from pgtoolkit.policies.head import Head
from pgtoolkit.policies.policy import Policy


@final
class UniformHead(Head):
    """The uniform distribution between the action bounds, whatever the features.

    Args:
        low: ``[A]`` lower action bounds, finite.
        high: ``[A]`` upper action bounds, finite.
    """

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.noise, self.action_size = (Noise("logistic", len(low)),), len(low)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, features: Tensor) -> Uniform:
        shape = (*features.shape[:-1], self.action_size)
        return Uniform(self.low.expand(shape), self.high.expand(shape))


def uniform_policy(policy: Policy) -> Policy:
    """A policy without parameters that draws actions uniformly from the given one's bounds.

    It shares the given policy's normaliser. Where an action has no bounds on both sides there is
    no such distribution, and the result is the given policy itself.
    """
    low, high = getattr(policy.head, "low", None), getattr(policy.head, "high", None)
    if low is None or high is None or not bool((low.isfinite() & high.isfinite()).all()):
        return policy
    head, found = UniformHead(low, high), copy.copy(policy)
    found.__dict__["_modules"] = policy._modules | {"torso": nn.Sequential(), "head": head}
    found.noise, found.action_size = head.noise, head.action_size
    return found
