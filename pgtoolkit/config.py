"""Settings of agents by groups, and ranges that a setting's annotation states.

An agent's configuration inherits the groups that it uses::

    class ShacConfig(RolloutSettings, PolicySettings, AdamSettings, ...): ...

A range stands in the annotation, ``gamma: Annotated[float, between(0, 1)] = 0.99``, and is checked
once, when the configuration is made. The command line is generated from the same classes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    final,
    get_args,
    get_origin,
    get_type_hints,
)

from pgtoolkit.compiling import Compile
from pgtoolkit.errors import RequestError, SettingError, single_line
from pgtoolkit.estimators.catalogue import PathwiseChoice
from pgtoolkit.limits import MAX_COUNT, MAX_CRITICS, MAX_FLOAT, MAX_INTEGER, MAX_LAYER, MAX_PASSES
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.value import CriticLoss, PolicyValue
from pgtoolkit.policies.factory import DistributionName
from pgtoolkit.policies.torso import MLP
from pgtoolkit.setting_types import fits, plain_value, types_of, words_of

Schedule = Literal["linear", "constant"]

Config = TypeVar("Config", bound="Settings")


@final
@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a setting may have.

    Attributes:
        text: completes "must be ...".
        holds: whether a value is in the range.
        low: the least value, or the bound above which values lie; None where there is none.
        high: the greatest value, or the bound below which values lie; None where there is none.
    """

    text: str
    holds: Callable[[Any], bool]
    low: float | None = None
    high: float | None = None


@final
@dataclasses.dataclass(frozen=True)
class Typical:
    """The values of a setting among which a search looks, if the user names none."""

    low: float
    high: float


def at_least(low: float, reason: str = "") -> Range:
    """``value >= low``; the reason, if there is one, is a part of the message."""
    text = f"at least {low}: {reason}" if reason else f"at least {low}"
    return Range(text, lambda value: value >= low, low=low)


def at_most(high: float) -> Range:
    """``value <= high``."""
    return Range(f"at most {high:,}", lambda value: value <= high, high=high)


def above(low: float) -> Range:
    """``value > low``."""
    return Range(f"above {low}", lambda value: value > low, low=low)


def between(low: float, high: float) -> Range:
    """``low <= value <= high``."""
    return Range(f"between {low} and {high}", lambda value: low <= value <= high, low, high)


def below(low: float, high: float) -> Range:
    """``low <= value < high``."""
    return Range(f"in [{low}, {high})", lambda value: low <= value < high, low, high)


def each(range_: Range, text: str | None = None) -> Range:
    """A range for every entry of a tuple."""
    return Range(text or range_.text, lambda values: all(range_.holds(x) for x in values))


NAMED_TORSO = Range(
    f"{MLP}, path/to/file.py:function or module:function",
    lambda name: name == MLP or all(part.strip() for part in name.rpartition(":")),
)
"""Names of hidden layers."""


@functools.cache
def ranges(kind: Any) -> tuple[tuple[str, Range], ...]:
    """The field names of a dataclass with each range that their annotations state."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (field.name, extra)
        for field in dataclasses.fields(kind)
        if get_origin(hints[field.name]) is Annotated
        for extra in get_args(hints[field.name])[1:]
        if isinstance(extra, Range)
    )


@functools.cache
def typical_ranges(kind: Any) -> dict[str, Typical]:
    """The field names of a dataclass with the typical values that their annotations state."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: extra
        for field in dataclasses.fields(kind)
        for extra in get_args(hints[field.name])[1:]
        if isinstance(extra, Typical)
    }


@functools.cache
def optional_fields(kind: Any) -> frozenset[str]:
    """The names of a dataclass's fields that may be None."""
    hints = get_type_hints(kind)
    names = (field.name for field in dataclasses.fields(kind))
    return frozenset(name for name in names if type(None) in get_args(hints[name]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A frozen group of settings whose values are checked when it is made.

    Raises:
        SettingError: a value has another type, is not finite or is outside its range.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        types = types_of(kind)
        for field in dataclasses.fields(self):
            value = plain_value(getattr(self, field.name), types[field.name])
            object.__setattr__(self, field.name, value)
            given = value is not None or field.name in optional_fields(kind)
            self.require(field.name, given, "given")
            self.require(field.name, is_finite(value), "a finite number")
            self.require(field.name, is_held_as_float(value), f"at most {MAX_FLOAT:g} in size")
            self.require(field.name, is_held(value), f"at most {MAX_INTEGER:,}")
            fits_type = value is None or fits(value, types[field.name])
            self.require(field.name, fits_type, words_of(types[field.name]))
        for name, range_ in ranges(kind):
            value = getattr(self, name)
            if value is not None:
                self.require(name, range_.holds(value), range_.text)

    def require(self, name: str, holds: bool, what: str) -> None:
        """Raises a :class:`SettingError` that names the setting unless ``holds``."""
        if not holds:
            flag, value = name.replace("_", "-"), getattr(self, name)
            shown = repr(value)[:80] if isinstance(value, str) else single_line(value)[:80]
            raise SettingError(f"--{flag} must be {what}, not {shown}")


def settings_for(agent: object, config: Config, kind: type[Config]) -> Config:
    """The settings, if they are of the agent's kind.

    Args:
        agent: an object of the class that is made.
        config: what was given.
        kind: the class of its settings; classes that derive from it are of its kind.

    Raises:
        RequestError: they are none, or another agent's; names both classes.
    """
    if isinstance(config, kind):
        return config
    given = config if isinstance(config, type) else type(config)
    what = "the class" if isinstance(config, type) else "an object of the class"
    raise RequestError(
        f"{type(agent).__name__} takes its settings, {kind.__name__}(...), not {what} "
        f"{given.__name__}"
    )


def is_finite(value: object) -> bool:
    """False for an infinite or NaN float, also inside a tuple; True for everything else."""
    if isinstance(value, tuple):
        return all(is_finite(entry) for entry in value)
    return not isinstance(value, float) or math.isfinite(value)


def is_held_as_float(value: object) -> bool:
    """False for a float beyond ``MAX_FLOAT`` on either side, also inside a tuple."""
    if isinstance(value, tuple):
        return all(is_held_as_float(entry) for entry in value)
    return not isinstance(value, float) or abs(value) <= MAX_FLOAT


def is_held(value: object) -> bool:
    """False for an integer beyond ``MAX_INTEGER`` on either side, also inside a tuple."""
    if isinstance(value, tuple):
        return all(is_held(entry) for entry in value)
    return not isinstance(value, int) or abs(value) <= MAX_INTEGER


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutSettings(Settings):
    """How much is collected for each update."""

    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 64
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 32
    """Steps of each environment in a window (the horizon of a pathwise gradient)."""
    gamma: Annotated[float, between(0, 1)] = 0.99
    """Discount factor."""
    normalize_rewards: bool = False
    """Scale rewards by the running standard deviation of the discounted return, in updates only:
    returns that are logged, and evaluations, stay in the environment's unit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamSettings(Settings):
    """Adam for the policy, with a learning-rate schedule and a clip of the gradient's norm."""

    learning_rate: Annotated[float, above(0)] = 3e-3
    """Adam's learning rate for the policy."""
    learning_rate_schedule: Schedule = "linear"
    """linear: falls to a hundredth over the planned total of steps; constant: stays."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.9, 0.999)
    """Decay rates of Adam's two moments."""
    max_grad_norm: Annotated[float, above(0)] = 1.0
    """Global norm to which the policy's gradient is clipped."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorsoSettings(Settings):
    """The kind of the policy's hidden layers."""

    torso: Annotated[str, NAMED_TORSO] = MLP
    """Hidden layers of the policy: mlp, which hidden, activation, layer_norm and first_bias
    describe, or path/to/file.py:function or module:function, Python code that is run. The function
    takes the observation space and returns an nn.Module from (normalised) observations [..., O] to
    features [..., F]. Value and Q functions stay fully connected layers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings(TorsoSettings):
    """The policy's network and distribution."""

    hidden: Annotated[
        tuple[int, ...],
        each(at_least(1), "sizes of at least 1"),
        each(at_most(MAX_LAYER), f"sizes of at most {MAX_LAYER:,}"),
    ] = (64, 64)
    """Sizes of the hidden layers of the policy, and of the value function if there is one."""
    activation: Activation = "tanh"
    """Activation of the hidden layers."""
    layer_norm: bool = False
    """Put a LayerNorm after each hidden activation."""
    first_bias: Annotated[float, at_least(0)] = 0.0
    """Half-width of the uniform distribution that the initial biases of the policy's first hidden
    layer are drawn from; 0 starts them at 0."""
    distribution: DistributionName = "gaussian"
    """Distribution of Box actions: gaussian (independent dimensions, tanh-squashed to bounds),
    clipped_gaussian (in units of each entry's box, [-1, 1], and clipped there; takes any bounds),
    clipped_tanh (as clipped_gaussian, with a mean that a tanh keeps inside the box; needs bounds),
    full_gaussian (correlated), mixture (of four Gaussians), beta (bounded boxes only; it has no
    std), flow (affine couplings). All but clipped_gaussian, clipped_tanh and beta need bounds on
    both sides of every entry, or none."""
    std: Std = "state_independent"
    """Standard deviation of the policy: one per dimension (state_independent), or a function of the
    observation whose logarithm a tanh keeps in [-5, 2] (state_dependent) or that is clamped to
    [-20, 2] (state_dependent_clamped)."""
    log_std_init: float = 0.0
    """Initial logarithm of the standard deviation, before squashing or scaling to the box."""
    normalize_observations: bool = True
    """Normalise observations by their running mean and variance. These are frozen inside a window
    and saved with the policy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicySettings(NetworkSettings):
    """The policy's network and distribution, and the weight of its entropy."""

    ent_coef: Annotated[float, at_least(0)] = 0.0
    """Weight of the policy's entropy (of the squashed action) in the objective, in the unit of the
    rewards that the update sees: with normalize_rewards, of the normalised ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathwiseNetworkSettings(NetworkSettings):
    """The network of a policy through which a path of many steps is differentiated."""

    activation: Activation = "elu"
    """Activation of the hidden layers."""
    layer_norm: bool = True
    """Put a LayerNorm after each hidden activation."""
    first_bias: Annotated[float, at_least(0)] = 0.3
    """Half-width of the uniform distribution that the initial biases of the policy's first hidden
    layer are drawn from. At 0, the LayerNorm would make the policy's gain grow without bound as
    observations come near 0."""
    log_std_init: float = -0.5
    """Initial logarithm of the standard deviation, before squashing. A larger one makes the policy
    learn a high gain against its own noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathwisePolicySettings(PathwiseNetworkSettings, PolicySettings):
    """A pathwise agent's network and distribution, and the weight of the policy's entropy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativeEntropySettings(Settings):
    """An entropy weight in units of the rewards' standard deviation."""

    ent_coef_relative: Annotated[float, at_least(0)] = 0.0
    """Weight of the policy's entropy in units of the standard deviation of the window's rewards;
    ent_coef is added to it. One setting then fits environments whose rewards have other scales."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileSettings(Settings):
    """Whether the step of policy and environment is compiled."""

    compile: Compile = "auto"
    """Compile the step of policy and environment: always, never, or auto, where there is a C++
    compiler and the run is long enough."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSettings(CompileSettings):
    """A graph through the environment."""

    checkpoint_every: Annotated[int, at_least(0), at_most(MAX_COUNT)] = 0
    """Keep only every n-th state of the graph, and compute the steps between them again in the
    backward pass: the same gradient in less memory, least at about the square root of n_steps. 0
    keeps the whole graph."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimatorSettings(GraphSettings):
    """A gradient through the environment, alone or mixed with the score function."""

    estimator: PathwiseChoice = "auto"
    """Gradient that the optimiser follows: pathwise; mixed, which adds the score function, each
    step with the weight of least variance; or auto: mixed with a Gaussian policy and at least six
    environments, else pathwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathwiseSettings(RelativeEntropySettings, EstimatorSettings):
    """A gradient through the environment, and a bonus for the policy's entropy."""

    ent_coef_relative: Annotated[float, at_least(0)] = 0.015
    """Weight of the entropy of the squashed action, in units of the standard deviation of the
    window's rewards. Without it a policy can lean against a bound, where tanh is flat and the
    pathwise gradient vanishes, and stay there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueSettings(Settings):
    """A learned value function, fitted to TD(lambda) returns."""

    gae_lambda: Annotated[float, between(0, 1), Typical(0.8, 0.995)] = 0.95
    """Lambda of the value function's TD(lambda) targets, and of GAE where it is used."""
    vf_learning_rate: Annotated[float, above(0)] = 3e-3
    """Adam's learning rate for the value function; it follows the policy's schedule."""
    vf_epochs: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 4
    """Passes of the value function over each window."""
    vf_minibatches: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 4
    """Minibatches in each pass."""
    vf_target_keep: Annotated[float, below(0, 1)] = 0.2
    """Share of the old target value function that each update keeps; 0 means no lag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueEnsembleSettings(ValueSettings):
    """Several learned value functions, with weights of their own, fitted to the same targets."""

    num_critics: Annotated[int, at_least(1), at_most(MAX_CRITICS)] = 2
    """Number of value functions, with weights of their own."""
    vf_target_keep: Annotated[float, below(0, 1)] = 0.0
    """Share of the old target value functions that each update keeps; 0 means no lag."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalGradientSettings(ValueSettings):
    """Steps along the policy's natural gradient, and Adam for the value function beside it."""

    target_kl: Annotated[float, above(0), Typical(0.003, 0.05)] = 0.01
    """Mean divergence KL(old, new) of an update's step, in nats."""
    cg_iterations: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 15
    """Iterations of the conjugate gradients that solve for the natural gradient."""
    cg_damping: Annotated[float, at_least(0)] = 0.1
    """Number that is added to the diagonal of the policy's Fisher information."""
    normalize_rewards: bool = True
    """Scale rewards by the running standard deviation of the discounted return, in updates only:
    returns that are logged, and evaluations, stay in the environment's unit."""
    vf_learning_rate: Annotated[float, above(0)] = 1e-3
    """Adam's learning rate for the value function."""
    vf_epochs: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 10
    """Passes of the value function over each window."""
    vf_minibatches: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 16
    """Minibatches in each pass."""
    vf_target_keep: Annotated[float, below(0, 1)] = 0.0
    """Share of the old target value function that each update keeps; 0 means no lag."""
    learning_rate_schedule: Schedule = "constant"
    """Of vf_learning_rate. linear: falls to a hundredth over the planned total of steps; constant:
    stays."""
    adam_betas: Annotated[tuple[float, float], each(below(0, 1))] = (0.9, 0.999)
    """Decay rates of Adam's two moments."""
    max_grad_norm: Annotated[float, above(0)] = 1e6
    """Global norm to which the value function's gradient is clipped. By default it is so large that
    nothing is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticSettings(Settings):
    """One or several learned Q functions, whose slope by the action the policy climbs."""

    policy_value: ClassVar[PolicyValue] = "least"
    """The number that the policy climbs where there are several Q functions."""

    critic: CriticLoss = "mse"
    """Output and loss of a Q function: mse, one number with a squared error; or hl_gauss, logits of
    bins with a cross entropy to a Gaussian histogram around the target."""
    critic_layer_norm: bool = False
    """Put a LayerNorm after each hidden activation of a Q function."""
    num_critics: Annotated[int, at_least(1), at_most(MAX_CRITICS)] = 1
    """Number of Q functions, with weights of their own."""
    value_range: Annotated[float, above(0)] = 300.0
    """Largest size of a value that an hl_gauss critic can represent, in the unit of the rewards
    that the update sees; targets beyond it are clipped. With normalize_rewards, the discounted
    return has a standard deviation of 30."""
    num_bins: Annotated[int, at_least(2), at_most(MAX_LAYER)] = 101
    """Number of bins of an hl_gauss critic. Fewer bins cost less, and tell values less apart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorrelatedNoiseSettings(RolloutSettings):
    """Noise of actions that explores further than independent noise does."""

    noise_correlation: Annotated[float, below(0, 1)] = 0.0
    """Correlation of the noise of an action with that of the next one; 0: independent. Each action
    keeps the policy's own distribution, but the noise stays on one side for about 1 / (1 -
    noise_correlation) steps, which explores further. A score function, as ppo's, is then biased: it
    takes the action for independent of those before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplaySettings(CorrelatedNoiseSettings):
    """How much is collected for each update, a replay buffer, and minibatches from it."""

    buffer_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 1_000_000
    """Transitions that the replay buffer holds; the oldest are overwritten."""
    learning_starts: Annotated[int, at_least(0), at_most(MAX_COUNT)] = 100
    """Environment steps with uniformly random, independent actions, and without updates, at the
    start. On HalfCheetah-v5 10,000 gave larger returns."""
    batch_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 256
    """Transitions in a minibatch, drawn with replacement."""
    gradient_steps: Annotated[int, Range("at least 1, or -1", lambda n: n == -1 or n >= 1)] = -1
    """Minibatches in an update; -1: as many as a window has steps, of all its environments."""
    tau: Annotated[float, above(0), at_most(1)] = 0.005
    """Share of the networks in each update of the target networks."""

    @property
    def num_minibatches(self) -> int:
        """The number of minibatches of an update."""
        given = self.gradient_steps
        return self.num_envs * self.n_steps if given == -1 else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeSettings(Settings):
    """Environments in which the critic's gradient is measured against the exact one."""

    probe_steps: Annotated[int, at_least(0), at_most(MAX_COUNT)] = 32
    """Steps of a measurement of the critic's gradient against the exact one, in differentiable
    environments of its own; 0 measures none. The exact gradient ends with the critic's value of the
    state after them: more steps leave less of the critic's error in it, and give it more
    variance."""
    probe_envs: Annotated[int, at_least(6), at_most(MAX_COUNT)] = 256
    """Environments of that measurement; each gives one trajectory. With 64, neither a bias nor a
    direction can mostly be told from noise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnosticsSettings(Settings):
    """Setting of how often gradients are measured."""

    diagnostics_interval: Annotated[int, at_least(0), at_most(MAX_COUNT)] = 10
    """Updates between measurements of the gradients' variance; 0 never measures."""
