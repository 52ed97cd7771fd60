"""What the training loop knows of an agent, and the configuration that all agents share."""

import dataclasses
import math
from typing import Any, Protocol

from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.learners.gradient_clip import Schedule
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.rollouts.window import Window

Metrics = dict[str, Tensor]
"""TensorBoard tag to a scalar, or to a vector over the steps of a window."""


class Agent(Protocol):
    """Anything that can be trained. The loop knows nothing else."""

    def collect(self) -> Window:
        """Acts for one window."""

    def update(self, window: Window) -> Metrics:
        """Learns from it."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that going on needs: tensors, numbers, strings, lists, dictionaries."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where ``state_dict`` left off."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Settings of every agent. Each agent's own configuration adds to them."""

    num_envs: int = 64
    """Parallel environments; each gives one trajectory of a window."""
    n_steps: int = 32
    """Steps of each environment in a window (the horizon of a pathwise gradient)."""
    gamma: float = 0.99
    """Discount."""
    learning_rate: float = 3e-3
    """Of the policy."""
    learning_rate_schedule: Schedule = "linear"
    """linear: falls to a hundredth over the planned total of steps; constant: stays."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's two moments."""
    max_grad_norm: float = 1.0
    """Global norm to which the policy's gradient is clipped."""
    ent_coef_relative: float = 0.0
    """As ent_coef, in units of the standard deviation of the window's rewards, to which it adds:
    one setting then fits environments whose rewards have other scales."""
    ent_coef: float = 0.0
    """Weight of the policy's entropy (of the squashed action) in the objective."""
    hidden: tuple[int, ...] = (64, 64)
    """Hidden layers of the policy, and of the value function if there is one."""
    activation: Activation = "tanh"
    """Of the hidden layers."""
    layer_norm: bool = False
    """LayerNorm after each hidden activation."""
    distribution: DistributionName = "gaussian"
    """Of Box actions: gaussian (independent dimensions, tanh-squashed to bounds), clipped_gaussian
    (its action clipped to them), full_gaussian (correlated), mixture (of four Gaussians), beta
    (bounded boxes only; it has no std), flow (affine couplings)."""
    std: Std = "state_independent"
    """The policy's standard deviation: one per dimension, or a function of the observation."""
    log_std_init: float = 0.0
    """Initial logarithm of the standard deviation, before squashing."""
    normalize_observations: bool = True
    """Running mean and variance of observations, frozen inside a window, saved with the policy."""
    diagnostics_interval: int = 10
    """Updates between measurements of the gradients' variance; 0 never measures."""

    def __post_init__(self) -> None:
        for name in ("num_envs", "n_steps"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            finite = not isinstance(value, float) or math.isfinite(value)
            self.require(field.name, finite, "a finite number")
        self.require("ent_coef_relative", self.ent_coef_relative >= 0, "at least 0")
        self.require("ent_coef", self.ent_coef >= 0, "at least 0")
        self.require("gamma", 0 <= self.gamma <= 1, "between 0 and 1")
        self.require("learning_rate", self.learning_rate > 0, "above 0")
        self.require("max_grad_norm", self.max_grad_norm > 0, "above 0")
        self.require("hidden", all(size >= 1 for size in self.hidden), "sizes of at least 1")
        self.require("adam_betas", all(0 <= b < 1 for b in self.adam_betas), "in [0, 1)")
        self.require("diagnostics_interval", self.diagnostics_interval >= 0, "at least 0")

    def require(self, name: str, holds: bool, what: str) -> None:
        """Raises a :class:`RequestError` that names the setting unless it holds."""
        if not holds:
            flag = name.replace("_", "-")
            raise RequestError(f"--{flag} must be {what}, not {getattr(self, name)}")
