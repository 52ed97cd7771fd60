"""REPPO: relative entropy pathwise policy optimisation (Voelcker et al. 2025).

The gradient of the policy goes through a learned ``Q(s, a)``, which is fitted to fresh windows; a
bound on the divergence from the policy that collected them takes the place of PPO's clip. The
policy that is evaluated and saved is the running mean of those that acted.
"""

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast, final

import torch
from torch import Tensor

from pgtoolkit.agent import CriticView, Metrics
from pgtoolkit.compiling import Compile, choose_compiled
from pgtoolkit.config import (
    AdamSettings,
    CompileSettings,
    CriticSettings,
    DiagnosticsSettings,
    PolicySettings,
    ProbeSettings,
    RolloutSettings,
    Schedule,
    Typical,
    above,
    at_least,
    at_most,
    below,
    between,
    each,
    settings_for,
)
from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.distributions.base import Distribution, GaussianParameters, nonzero
from pgtoolkit.distributions.clipped import unit_box
from pgtoolkit.distributions.gaussian import gaussian_kl, gaussian_of
from pgtoolkit.envs.collector import Collector
from pgtoolkit.envs.measurement.critic_monitor import CriticMonitor
from pgtoolkit.envs.vectorized.given import EnvArgument
from pgtoolkit.estimators.action_surrogates import SURROGATES
from pgtoolkit.estimators.kl_constraint import CONSTRAINTS, Constraint, KLConstraint
from pgtoolkit.estimators.returns import soft_reward, window_returns
from pgtoolkit.finite import require_finite_steps
from pgtoolkit.learners.dual_variables import Duals, alpha_speed, mean_excess, present_alpha
from pgtoolkit.learners.minibatches import (
    GivenModules,
    Minibatches,
    Objective,
    draw_minibatches,
)
from pgtoolkit.learners.policy_learner import describe
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.learners.step_rules.adam import scheduled
from pgtoolkit.learners.step_rules.flat_adam import Blocks, FlatAdam
from pgtoolkit.learners.step_rules.flat_sgd import FlatSgd
from pgtoolkit.limits import MAX_COUNT, MAX_LAYER, MAX_PASSES
from pgtoolkit.networks.bounds import action_bounds
from pgtoolkit.networks.mlp import Activation, Std
from pgtoolkit.networks.value import CriticLoss, explained_variance_metric
from pgtoolkit.policies.average import running_average
from pgtoolkit.policies.policy import Policy, without_normalizer
from pgtoolkit.rollouts.window import Window
from pgtoolkit.seeding import stream
from pgtoolkit.state import load_state_of, state_of

MOST_BETA = 1000.0
"""Multiple of ``kl_coef`` above which ``beta`` does not rise further. Where steps of this learning
rate are longer than the bound, no weight holds them back, and it would grow until it overflows."""
LEAST_ALPHA = 0.01
"""Share of ``ent_coef`` below which the learned part of ``alpha`` does not fall further. It would
have to come back all the way once the entropy has fallen to its target."""
MINIBATCH_SECONDS = 1.6e-3
"""Seconds that compiled code saves, at least, on one minibatch."""
STATE = (
    "collector",
    "policy",
    "average",
    "q",
    "duals",
    "minibatches",
    "generator",
    "noise",
    "baseline_noise",
    "monitor",
    "critic_monitor",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReppoConfig(
    RolloutSettings,
    AdamSettings,
    CompileSettings,
    PolicySettings,
    CriticSettings,
    ProbeSettings,
    DiagnosticsSettings,
):
    """Relative entropy pathwise policy optimisation: on-policy, through a critic."""

    estimator: Literal["critic", "score_function", "mixed"] = "critic"
    """Gradient of E[Q] that the policy follows, all else equal: critic, dQ/da at a fresh action;
    score_function, from the returns of the actions that were taken; or mixed, the mix of both of
    least variance in every minibatch."""
    num_envs: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 16
    """Number of parallel environments; each gives one trajectory of a window."""
    n_steps: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 128
    """Steps of each environment in a window."""
    batch_size: Annotated[int, at_least(1), at_most(MAX_COUNT)] = 128
    """Steps in a minibatch; the remainder of an epoch's permutation is left out of that epoch."""
    n_epochs: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 8
    """Passes over each window."""
    learning_rate: Annotated[float, above(0)] = 3e-4
    """Adam's learning rate for the policy; and what the logarithm of ent_coef moves by, at most, on
    a minibatch."""
    critic_learning_rate: Annotated[float, above(0)] = 1.5e-3
    """Adam's learning rate for the critic; it follows the same schedule."""
    kl_coef_learning_rate: Annotated[float, above(0)] = 3e-3
    """Adam's learning rate for the logarithm of kl_coef; it follows the same schedule. At that of
    the policy, kl_coef would lag behind the policy's steps."""
    learning_rate_schedule: Schedule = "constant"
    """linear: falls to a hundredth over the planned total of steps; constant: stays. With linear,
    kl_coef cannot rise as kl_bound falls, and the policy leaves the bound."""
    adam_epsilon: Annotated[float, above(0)] = 1e-8
    """Number that is added to the root of Adam's second moment."""
    max_grad_norm: Annotated[float, above(0)] = 15.0
    """Global norm to which the policy's gradient is clipped."""
    critic_max_grad_norm: Annotated[float, above(0)] = 0.5
    """Global norm to which the critic's gradient is clipped."""
    gae_lambda: Annotated[float, between(0, 1), Typical(0.8, 0.99)] = 0.9
    """Lambda of the critic's TD(lambda) targets."""
    normalize_rewards: bool = True
    """Scale rewards by the running standard deviation of the discounted return, in updates only:
    returns that are logged, and evaluations, stay in the environment's unit."""
    ent_coef: Annotated[float, above(0)] = 0.06
    """Initial weight alpha of the entropy, in the unit of the rewards that the update sees. It is
    learned: it rises while the entropy is below target_entropy, and falls while it is above, more
    slowly near the target, and as kl_bound falls, which slows the entropy."""
    ent_coef_gain: Annotated[float, at_least(0)] = 0.0
    """Nats that the logarithm of ent_coef is lower at once for each nat of an action dimension that
    the entropy is above target_entropy, and higher below, up to one nat; 0: it only learns. With 2
    the entropy is at its target sooner, and stays there."""
    target_entropy: float | None = None
    """Mean entropy that alpha is learned for, in nats, of the action in units of its box, in which
    the bounds are -1 and 1; default: minus half the number of action dimensions."""
    kl_bound: Annotated[float, above(0)] = 0.1
    """Bound of the divergence KL(old, new) from the policy that collected the window, in nats."""
    kl_bound_schedule: Schedule = "linear"
    """linear: kl_bound falls to a hundredth over the planned total of steps; constant: stays. Every
    window takes the policy to the bound, so the bound is the length of its steps."""
    kl_constraint: KLConstraint = "penalty"
    """penalty: kl_coef times the divergence is taken from the objective at all states, which bounds
    its mean; mask: at a state beyond kl_bound it stands in the place of the objective, as in the
    paper."""
    kl_coef: Annotated[float, above(0)] = 0.3
    """Initial weight beta of the divergence, in the unit of the rewards that the update sees. It is
    learned: it rises while the mean divergence is above kl_bound, and falls while it is below."""
    policy_average: Annotated[float, below(0, 1)] = 0.97
    """Decay per update of the running mean of the policy's parameters, which is evaluated and
    saved, while the policy itself acts; 0: the policy itself."""
    baseline_samples: Annotated[int, at_least(1), at_most(MAX_PASSES)] = 4
    """Actions over which Q is averaged for the baseline of the score function."""
    critic: CriticLoss = "mse"
    """Output and loss of the critic: mse, one number with a squared error; or hl_gauss, as in the
    paper, logits of bins with a cross entropy to a Gaussian histogram around the target. Bins have
    to be narrow beside the differences that actions make (--num-bins, --value-range)."""
    num_bins: Annotated[int, at_least(2), at_most(MAX_LAYER)] = 151
    """Number of bins of an hl_gauss critic. Fewer bins cost less, and tell values less apart."""
    critic_layer_norm: bool = True
    """Put a LayerNorm after each hidden activation of the critic."""
    hidden: Annotated[
        tuple[int, ...],
        each(at_least(1), "sizes of at least 1"),
        each(at_most(MAX_LAYER), f"sizes of at most {MAX_LAYER:,}"),
    ] = (128, 128)
    """Sizes of the hidden layers of the policy and of the critic."""
    activation: Activation = "silu"
    """Activation of the hidden layers."""
    layer_norm: bool = True
    """Put a LayerNorm after each hidden activation of the policy."""
    distribution: Literal["gaussian"] = "gaussian"
    """Distribution of Box actions: gaussian, independent dimensions, tanh-squashed to bounds, whose
    divergence is exact."""
    std: Std = "state_dependent"
    """Standard deviation of the policy: one per dimension, or a function of the observation."""
    log_std_init: float = -0.5
    """Initial logarithm of the standard deviation, before squashing."""
    compile: Compile = "auto"
    """Compile the loop over minibatches: always, never, or auto, where there is a C++ compiler and
    the run is long enough."""


@final
class Batch(NamedTuple):
    """The steps of a window that happened, ``M`` rows of each."""

    features: Tensor
    """Observations after the policy's normaliser."""
    pre_action: Tensor
    action: Tensor
    log_prob: Tensor
    old_mean: Tensor
    """Mean and log standard deviation of the Gaussian that drew the pre-action."""
    old_log_std: Tensor
    target: Tensor
    """The critic's ``[M, E]``, as its loss reads them."""
    advantage: Tensor
    """The target less ``E_a[Q(s, a)]``, or 0 where only the critic's gradient is used."""


@final
class Reppo:
    """Increases ``E[Q(s, a)] + alpha H`` under a bound of ``KL(old, new)``.

    For each minibatch the critic makes a step towards the TD(lambda) returns of soft rewards, and
    then the policy makes one down

        ``mean_s (beta KL(old, new) - (Q(s, a) + alpha H))``

    with the critic after its step, and with noise of that minibatch's own in ``a``. ``alpha`` is a
    controller of the entropy with a proportional part, :func:`present_alpha`, and an integral one,
    whose logarithm moves by :func:`alpha_speed`. The logarithm of ``beta`` moves down ``beta (bound
    - KL)``. In the soft rewards too an entropy is worth ``alpha (H - target)``, as in the
    Lagrangian. The divergence is exact: that of the Gaussians before squashing. With
    ``kl_constraint = "mask"`` the loss is the paper's,
    ``mean_s (-(Q(s, a) + alpha H) if KL(old, new) < bound else beta KL(old, new))``.

    Args:
        config: settings.
        env: any vector environment of ``config.num_envs`` environments with continuous actions, or
            one environment, an id or a function, of which that many are made.
        seed: determines the weights, the noise, the starts and the minibatches.
        total_steps: planned environment steps, for the schedules and the choice to compile.

    Raises:
        RequestError: no policy or critic fits the spaces.
    """

    needs_gradient: ClassVar[bool] = False

    def __init__(
        self, config: ReppoConfig, env: EnvArgument, *, seed: int = 0, total_steps: int = 500_000
    ) -> None:
        self.config = settings_for(self, config, ReppoConfig)
        self.collector = Collector(env, config, seed=seed, total_steps=total_steps)
        spaces, device = self.collector.spaces, self.collector.device
        self.q = make_q_ensemble(config, spaces, seed=seed).to(device)
        self.policy = self.collector.make_policy()
        self.average = running_average(self.policy, config.policy_average)
        self.duals = Duals(config.ent_coef, config.kl_coef).to(device)
        self.generator = stream(seed, "minibatches", device)
        self.noise = stream(seed, "update noise", device)
        self.baseline_noise = stream(seed, "baseline noise", device)
        self.monitor = GradientMonitor(config.diagnostics_interval, unit=self.collector.reward_unit)
        self.critic_monitor = CriticMonitor(self.collector, config, self.monitor)
        scale = nonzero(unit_box(*action_bounds(spaces[1]))[1]).to(device)
        self.log_volume = float(scale.log().sum())
        target = config.target_entropy
        self.entropy_target = -0.5 * len(scale) if target is None else target
        self.action_size = len(scale)
        num_minibatches = total_steps * config.n_epochs / config.batch_size
        self.minibatches: Minibatches[Batch] = Minibatches(
            self.objectives(),
            compiled=choose_compiled(config.compile, MINIBATCH_SECONDS * num_minibatches, device),
        )

    @property
    def critic(self) -> CriticView:
        """The critic; its entropies are those of actions in units of their box."""
        scale = float(self.collector.reward_normalizer.scale)
        return CriticView(self.q, float(self.duals.temperature), scale, self.entropy_target)

    @property
    def averaged_policy(self) -> Policy:
        """The running mean of the policies that acted."""
        return cast(Policy, self.average.module)

    def objectives(self) -> list[Objective]:
        """What steps on each minibatch: the critic, then policy and dual variables."""
        config, policy = self.config, without_normalizer(self.policy)

        def adam(learning_rate: float, max_grad_norm: float = math.inf) -> FlatAdam:
            return FlatAdam(
                betas=config.adam_betas,
                epsilon=config.adam_epsilon,
                max_grad_norm=max_grad_norm,
                pace=learning_rate / config.learning_rate,
            )

        critic_rule = adam(config.critic_learning_rate, config.critic_max_grad_norm)
        policy_rule = Blocks(
            (
                adam(config.learning_rate, config.max_grad_norm),
                FlatSgd(),
                adam(config.kl_coef_learning_rate),
            ),
            (sum(p.numel() for p in policy.parameters()), 1, 1),
        )
        moved = {"policy": policy, "duals": self.duals}
        return [
            Objective({"critic": self.q}, self.critic_loss, critic_rule, "critic"),
            Objective(moved, self.policy_loss, policy_rule, "policy"),
        ]

    def collect(self) -> Window:
        return self.collector.collect(self.policy).detach()

    def update(self, window: Window) -> Metrics:
        normalize = self.policy.normalizer
        with self.monitor.updating():
            window = self.collector.normalized(window)
            features = normalize(window.obs)
            with torch.no_grad():
                old = gaussian_of(without_normalizer(self.policy)(features))
            target = self.targets(window)
            metrics = self.explained(window, features, target)
            advantage = self.advantage(target, features)
            batch = batch_of(window, features, old, self.q.encode(target), advantage)
            metrics |= self.critic_monitor.measure_surrogates(
                self.policy,
                batch,
                self.surrogates,
                batch_size=self.config.batch_size,
                followed=self.config.estimator,
            )
            metrics |= self.learn(batch)
            metrics |= self.critic_monitor.measure_bias(self)
            metrics |= self.describe(window, features, old)
            normalize.update(window.obs, window.valid)
            self.average.update_parameters(self.policy)
            return metrics | self.collector.metrics()

    def learn(self, batch: Batch) -> Metrics:
        """Makes the steps of an update on minibatches that it draws."""
        config = self.config
        rows = draw_minibatches(
            len(batch.target), config.batch_size, config.n_epochs, self.generator
        )
        noise = self.policy.draw_noise(*rows.shape, generator=self.noise)
        bounds = noise.new_full((len(rows),), self.kl_bound)
        found = self.minibatches.run(batch, rows, self.learning_rate, noise, bounds)
        return {TAGS[name]: values.mean() for name, values in found.items()}

    @property
    def learning_rate(self) -> float:
        """The learning rate of this update."""
        config, progress = self.config, self.collector.progress()
        return scheduled(config.learning_rate, config.learning_rate_schedule, progress)

    @property
    def kl_bound(self) -> float:
        """The bound of the divergence in this update."""
        config, progress = self.config, self.collector.progress()
        return scheduled(config.kl_bound, config.kl_bound_schedule, progress)

    @torch.no_grad()
    def describe(self, window: Window, features: Tensor, old: GaussianParameters) -> Metrics:
        """The policy and the dual variables after the steps of an update."""
        distribution = without_normalizer(self.policy)(features)
        divergence = gaussian_kl(old, gaussian_of(distribution))[window.valid]
        beta = self.duals()[1]
        return describe(distribution, window) | {
            "train/approx_kl": divergence.mean(),
            "train/kl_exceeded": (divergence > self.kl_bound).float().mean(),
            "train/ent_coef": self.duals.temperature.clone(),
            "train/kl_coef": beta,
            "train/learning_rate": torch.tensor(self.learning_rate),
            "gradient/overhead": self.monitor.overhead,
        }

    @torch.no_grad()
    def targets(self, window: Window) -> Tensor:
        """The TD(lambda) returns ``[T, N]`` of soft rewards, with one action at ``next_obs``.

        An entropy is worth ``alpha (H - target)``, nothing on average where the bound holds. With
        ``alpha H``, and a target below 0, every step before the end of an episode would cost.
        """
        config, features = self.config, self.policy.normalizer(window.next_obs)
        distribution = without_normalizer(self.policy)(features)
        noise = self.policy.draw_noise(*window.reward.shape, generator=self.noise)
        action = distribution.squash(distribution.pre_action(noise))
        parts = {
            "reward": window.reward,
            "value of the next action": self.q.policy_value(features, action),
            "entropy of the next action": self.entropy(distribution, noise),
        }
        # Checked before the returns, which carry a bad number back to the window's start.
        require_finite_steps({k: torch.where(window.valid, x, 0.0) for k, x in parts.items()})
        reward, next_value, next_entropy = parts.values()
        excess = mean_excess(next_entropy[window.valid], self.entropy_target, self.action_size)
        alpha = present_alpha(self.duals()[0], excess, config.ent_coef_gain)
        self.duals.temperature.copy_(alpha)
        reward = soft_reward(
            reward,
            next_entropy - self.entropy_target,
            window.terminated,
            gamma=config.gamma,
            temperature=self.duals.temperature,
        )
        return window_returns(
            dataclasses.replace(window, reward=reward),
            next_value,
            gamma=config.gamma,
            lambda_=config.gae_lambda,
        )

    def advantage(self, target: Tensor, features: Tensor) -> Tensor:
        """``G - V(s)`` ``[T, N]``; 0 where no step and no measurement needs it."""
        if self.config.estimator != "critic":
            return target - self.value(features)
        if not self.monitor.due:
            return torch.zeros_like(target)
        with self.monitor.diagnosing():
            return target - self.value(features)

    @torch.no_grad()
    def value(self, features: Tensor) -> Tensor:
        """``E_a[Q(s, a)]`` ``[T, N]``, a mean over samples of ``a``: a baseline of returns."""
        distribution = without_normalizer(self.policy)(features)
        values = []
        for _ in range(self.config.baseline_samples):
            noise = self.policy.draw_noise(*features.shape[:2], generator=self.baseline_noise)
            action = distribution.squash(distribution.pre_action(noise))
            values.append(self.q.policy_value(features, action))
        return torch.stack(values).mean(0)

    def entropy(self, distribution: Distribution, noise: Tensor) -> Tensor:
        """The entropy ``[...]`` of actions in units of their box, at one sample."""
        return distribution.entropy(noise) - self.log_volume

    @torch.no_grad()
    def explained(self, window: Window, features: Tensor, target: Tensor) -> Metrics:
        """How much of the targets' variance the critic explains before it sees them."""
        value = self.q.policy_value(features, window.action)
        return explained_variance_metric(value[window.valid], target[window.valid])

    def critic_loss(
        self, modules: GivenModules, mini: Batch, noise: Tensor, kl_bound: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss on a minibatch; it needs no noise and no bound."""
        given = mini.features, mini.action, mini.target
        loss = modules["critic"].call("loss_of_encoded", *given).mean()
        return loss, {}

    def policy_loss(
        self, modules: GivenModules, mini: Batch, noise: Tensor, kl_bound: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of policy and dual variables on a minibatch, with fresh noise."""
        distribution: Distribution = modules["policy"](mini.features)
        alpha, beta = modules["duals"]()
        action = distribution.squash(distribution.pre_action(noise))
        value = modules["critic"].call("policy_value", mini.features, action)
        return reppo_loss(
            SURROGATES[self.config.estimator](distribution, value, mini),
            self.entropy(distribution, noise),
            gaussian_kl(
                GaussianParameters(mini.old_mean, mini.old_log_std), gaussian_of(distribution)
            ),
            alpha,
            beta,
            constrained=CONSTRAINTS[self.config.kl_constraint],
            entropy_target=self.entropy_target,
            action_size=self.action_size,
            alpha_gain=self.config.ent_coef_gain,
            least_alpha=LEAST_ALPHA * self.config.ent_coef,
            kl_bound=kl_bound,
            full_kl_bound=self.config.kl_bound,
            most_beta=MOST_BETA * self.config.kl_coef,
        )

    def surrogates(self, mini: Batch, noise: Tensor) -> dict[str, Tensor]:
        """``S + alpha H`` ``[M]`` by each estimator, with policy and critic as they are now.

        At the policy that collected the window these are what :meth:`policy_loss` increases.
        """
        distribution = without_normalizer(self.policy)(mini.features)
        action = distribution.squash(distribution.pre_action(noise))
        value = self.q.policy_value(mini.features, action)
        entropy = self.entropy(distribution, noise)
        excess = mean_excess(entropy, self.entropy_target, self.action_size)
        alpha = present_alpha(self.duals()[0].detach(), excess, self.config.ent_coef_gain)
        bonus = alpha * entropy
        return {name: term(distribution, value, mini) + bonus for name, term in SURROGATES.items()}

    def state_dict(self) -> dict[str, Any]:
        return state_of(self, STATE)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_state_of(self, STATE, state)


TAGS = {
    "critic_loss": "train/critic_loss",
    "critic_norm": "train/critic_gradient_norm",
    "policy_loss": "train/loss",
    "improvement": "train/policy_gradient_loss",
    "policy_norm": "train/gradient_norm",
}
"""TensorBoard tag of each number of a minibatch."""


def batch_of(
    window: Window, features: Tensor, old: GaussianParameters, target: Tensor, advantage: Tensor
) -> Batch:
    """The steps that happened, as rows; views where all of them did."""
    taken = features, window.pre_action, window.action, window.log_prob
    fields = (*taken, *old, target, advantage)
    if bool(window.valid.all()):
        return Batch(*(x.flatten(0, 1) for x in fields))
    return Batch(*(x[window.valid] for x in fields))


def reppo_loss(
    surrogate: Tensor,
    entropy: Tensor,
    divergence: Tensor,
    alpha: Tensor,
    beta: Tensor,
    *,
    constrained: Constraint,
    entropy_target: float,
    action_size: int,
    kl_bound: Tensor | float,
    full_kl_bound: float,
    alpha_gain: float = 0.0,
    least_alpha: float = 0.0,
    most_beta: float = math.inf,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean of the constrained ``S + alpha H``, and the losses of ``alpha`` and ``beta``.

    ``alpha``, by :func:`present_alpha`, and ``beta`` are constants in the first part, and all else
    is in the other two, ``speed log alpha``, with :func:`alpha_speed`, and ``beta (bound - mean
    KL)``.

    Args:
        surrogate: ``S`` ``[M]``, whose gradient is that of ``E_a[Q(s, a)]``.
        entropy: ``H`` ``[M]``.
        divergence: ``KL(old, new)`` ``[M]``.
        alpha: learned part of the weight of the entropy.
        beta: weight of the divergence.
        constrained: puts objective and divergence together (:mod:`pgtoolkit.
            estimators.kl_constraint`).
        entropy_target: entropy that ``alpha`` is learned for.
        action_size: number of action dimensions.
        kl_bound: bound of the divergence.
        full_kl_bound: the bound that the run began with.
        alpha_gain: of :func:`present_alpha`.
        least_alpha: below it ``alpha`` has no reason to fall.
        most_beta: above it ``beta`` has no reason to rise.

    Returns:
        The loss, and minus the mean of ``S`` as ``improvement``.
    """
    excess = mean_excess(entropy, entropy_target, action_size)
    objective = surrogate + present_alpha(alpha.detach(), excess, alpha_gain) * entropy
    loss = constrained(objective, beta.detach() * divergence, divergence < kl_bound).mean()
    excess = torch.where(alpha.detach() > least_alpha, excess, excess.clamp(max=0.0))
    dual = alpha.log() * alpha_speed(excess, kl_bound / full_kl_bound)
    room = kl_bound - divergence.detach().mean()
    dual = dual + beta * torch.where(beta.detach() < most_beta, room, room.clamp(min=0.0))
    return loss + dual, {"improvement": -surrogate.detach().mean()}
