"""Policies of every kind, moved from their initial weights, with observations far and wide."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.normalizer import ObservationNormalizer
from pgtoolkit.policies.factory import DistributionName, make_policy
from pgtoolkit.policies.policy import Policy

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
EXACT = spaces.Box(-np.inf, np.inf, (3,), np.float64)
WHOLE = spaces.Box(-(10**9), 10**9, (3,), np.int64)
BOUNDED = spaces.Box(np.array([-2.0, 1.0], np.float32), np.array([2.0, 5.0], np.float32))
UNBOUNDED = spaces.Box(-np.inf, np.inf, (2,), np.float32)
ONE_SIDED = spaces.Box(np.array([0.0, -np.inf]), np.array([np.inf, 0.1]), dtype=np.float64)
TENTHS = spaces.Box(-0.1, 0.1, (2,), np.float64)
LAST, FIRST, GREY = (
    spaces.Box(0, 255, shape, np.uint8) for shape in ((16, 20, 3), (3, 40, 40), (14, 14))
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that an agent's configuration has."""

    distribution: DistributionName = "gaussian"
    activation: Activation = "tanh"
    layer_norm: bool = False
    std: Std = "state_independent"
    normalize_observations: bool = True
    hidden: tuple[int, ...] = (9, 7)
    first_bias: float = 0.1
    log_std_init: float = -0.5


class Case(NamedTuple):
    """A policy's settings and spaces."""

    settings: Settings
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]


PLAIN = Settings()
CASES = {
    "gaussian": Case(PLAIN, VECTOR, BOUNDED),
    "gaussian without bounds": Case(PLAIN, VECTOR, UNBOUNDED),
    "gaussian with bounds of float64": Case(PLAIN, EXACT, TENTHS),
    "gaussian with two outputs": Case(
        Settings(std="state_dependent", activation="silu"), VECTOR, BOUNDED
    ),
    "gaussian of whole observations": Case(PLAIN, WHOLE, BOUNDED),
    "gaussian without normaliser": Case(
        Settings(normalize_observations=False, activation="relu"), EXACT, BOUNDED
    ),
    "linear gaussian": Case(Settings(hidden=()), VECTOR, BOUNDED),
    "clipped": Case(Settings("clipped_gaussian", "elu", True), VECTOR, BOUNDED),
    "clipped on one side": Case(Settings("clipped_gaussian", "silu"), EXACT, ONE_SIDED),
    "clipped_tanh": Case(Settings("clipped_tanh", "relu"), VECTOR, BOUNDED),
    "full": Case(Settings("full_gaussian"), VECTOR, BOUNDED),
    "full without bounds": Case(
        Settings("full_gaussian", std="state_dependent_clamped"), VECTOR, UNBOUNDED
    ),
    "mixture": Case(Settings("mixture"), VECTOR, BOUNDED),
    "mixture without bounds": Case(Settings("mixture"), EXACT, UNBOUNDED),
    "beta": Case(Settings("beta"), VECTOR, BOUNDED),
    "flow": Case(Settings("flow", "elu"), VECTOR, BOUNDED),
    "categorical": Case(PLAIN, VECTOR, spaces.Discrete(4)),
    "several categorical": Case(PLAIN, EXACT, spaces.MultiDiscrete([3, 2, 5])),
    "binary": Case(PLAIN, VECTOR, spaces.MultiBinary(3)),
    "images, channels last": Case(PLAIN, LAST, BOUNDED),
    "images, channels first": Case(Settings("beta"), FIRST, BOUNDED),
    "grey images": Case(PLAIN, GREY, spaces.Discrete(4)),
}
"""Every head, encoder, dtype and kind of bounds."""


def shaken_policy(case: Case) -> Policy:
    """The policy of a case with weights of about 1, whose actions reach the bounds."""
    generator = torch.Generator().manual_seed(3)
    policy = make_policy(case.settings, case.observation_space, case.action_space, generator)
    with torch.no_grad():
        for parameter in policy.parameters():
            scale = 1.5 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    if isinstance(policy.normalizer, ObservationNormalizer):
        large = case.observation_space.dtype == np.float64
        policy.normalizer.mean = torch.tensor([1.7e9 if large else 17.0, -3.0, 0.0]).double()
        policy.normalizer.variance = torch.tensor([4.0, 1e-4, 900.0]).double()
    return policy


def wide_observations(case: Case, policy: Policy, count: int = 1000) -> Tensor:
    """Observations ``[count, O]`` as rollouts keep them, some beyond the normaliser's limits."""
    generator = torch.Generator().manual_seed(4)
    space = case.observation_space
    assert space.shape is not None
    kept = torch.from_numpy(np.empty(0, policy.normalizer.input_dtype)).dtype
    if len(space.shape) > 1:
        return torch.randint(256, (count, *space.shape), generator=generator).to(kept)
    rows = torch.randn(count, *space.shape, generator=generator, dtype=torch.float64)
    rows[: count // 10] *= 20
    if isinstance(policy.normalizer, ObservationNormalizer):
        rows = policy.normalizer.mean + policy.normalizer.variance.sqrt() * rows
    return (rows.round() if space.dtype == np.int64 else rows).to(kept)
