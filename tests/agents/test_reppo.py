"""REPPO the agent: its update by hand, and faults of published code that it must not have."""

import copy
import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import Tensor

from pgtoolkit.agent import evaluated_policy
from pgtoolkit.agents import reppo
from pgtoolkit.agents.reppo import Batch, Reppo, ReppoConfig
from pgtoolkit.diagnostics.outer_products import dense
from pgtoolkit.diagnostics.per_trajectory import Gradients, SampleGradients
from pgtoolkit.distributions.base import GaussianParameters
from pgtoolkit.distributions.box_units import log_prob_in_box
from pgtoolkit.distributions.gaussian import gaussian_kl
from pgtoolkit.distributions.squashed import TanhGaussian
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.action_surrogates import SURROGATES, least_variance_weight
from pgtoolkit.estimators.kl_constraint import CONSTRAINTS, penalised
from pgtoolkit.learners.dual_variables import Duals
from pgtoolkit.learners.flat_module import FlatModule
from pgtoolkit.learners.minibatches import draw_minibatches
from pgtoolkit.learners.step_rules.flat_adam import unflatten
from pgtoolkit.rollouts.window import Window

SMALL: dict[str, Any] = {
    "num_envs": 4,
    "n_steps": 16,
    "batch_size": 16,
    "n_epochs": 2,
    "hidden": (8,),
    "compile": "never",
}
ESTIMATORS = ("critic", "score_function", "mixed")


def pendulum(**settings: Any) -> Reppo:
    config = ReppoConfig(**(SMALL | settings))
    return Reppo(config, DifferentiableVectorEnv(Pendulum(), config.num_envs), seed=1)


def ended(window: Window, terminated: Tensor, truncated: Tensor) -> Window:
    """The window with other ends of episodes."""
    fields = {**vars(window), "terminated": terminated, "truncated": truncated}
    del fields["segment_end"]
    return Window(**fields)


def flags(window: Window, *steps: int) -> Tensor:
    found = torch.zeros_like(window.terminated)
    found[list(steps)] = True
    return found


def whole(agent: Reppo) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in agent.minibatches.modules.named_parameters()}


# The update by hand -----------------------------------------------------------------------------

LINEAR: dict[str, Any] = {
    "num_envs": 1,
    "n_steps": 3,
    "batch_size": 3,
    "n_epochs": 2,
    "hidden": (),
    "critic": "mse",
    "normalize_rewards": False,
    "normalize_observations": False,
    "gamma": 0.9,
    "gae_lambda": 0.7,
    "learning_rate": 0.1,
    "critic_learning_rate": 0.2,
    "kl_coef_learning_rate": 0.3,
    "adam_epsilon": 3.0,  # so large that steps depend on the size of the gradient
    "max_grad_norm": 1.0,
    "critic_max_grad_norm": 2.0,
    "learning_rate_schedule": "constant",
    "target_entropy": -0.5,
    "ent_coef": 0.3,
    "ent_coef_gain": 2.0,
    "kl_coef": 0.2,
}


class ByHand:
    """The update of a linear policy and a linear critic, with formulas of its own, in float64."""

    def __init__(self, agent: Reppo) -> None:
        names = ["policy.head.output.weight", "policy.head.output.bias"]
        names += ["critic.members.0.network.0.weight", "critic.members.0.network.0.bias"]
        names += ["duals.log_alpha", "duals.log_beta"]
        at = dict(agent.minibatches.modules.named_parameters())
        assert set(at) == set(names)
        self.w, self.b, self.q, self.c, self.log_alpha, self.log_beta = (
            at[name].detach().double().clone().requires_grad_() for name in names
        )
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}
        self.config = agent.config

    def gaussian(self, s: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = (s @ self.w.T + self.b).unbind(-1)
        return mean, -1.5 + 3.5 * torch.tanh(raw)

    def draw(self, s: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Action in the box [-2, 2], and minus the log density of it in the box [-1, 1]."""
        mean, log_std = self.gaussian(s)
        u = mean + log_std.exp() * eps
        slope = torch.log1p(-(torch.tanh(u) ** 2))
        entropy = log_std + 0.5 * math.log(2 * math.pi * math.e) + slope
        return 2 * torch.tanh(u), entropy

    def alpha(self, entropy: Tensor) -> Tensor:
        """Two nats lower for each that the entropy is above its target, up to one."""
        off = min(1.0, max(-1.0, float(entropy.detach().mean() + 0.5)))
        return torch.exp(self.log_alpha.detach() - 2 * off)

    def value(self, s: Tensor, action: Tensor) -> Tensor:
        return (torch.cat([s, action[:, None] / 2], -1) @ self.q.T + self.c)[:, 0]

    def adam(
        self, loss: Tensor, parameters: list[Tensor], norm: float, count: int, rate: float
    ) -> None:
        config = self.config
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        total = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        for x, g in zip(parameters, gradients, strict=True):
            g = g * min(1.0, norm / total)
            m, v = self.moments.get(id(x), (torch.zeros_like(g), torch.zeros_like(g)))
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            self.moments[id(x)] = m, v
            size = (v / (1 - 0.999**count)).sqrt() + config.adam_epsilon
            with torch.no_grad():
                x -= rate * m / (1 - 0.9**count) / size

    def targets(self, window: Window, eps: Tensor) -> Tensor:
        """Step 0 terminates, step 1 is truncated, step 2 is cut off by the window's end."""
        s, r, gamma = window.next_obs[:, 0].double(), window.reward[:, 0].double(), 0.9
        with torch.no_grad():
            action, entropy = self.draw(s, eps)
            self.temperature = self.alpha(entropy)
            soft = self.value(s, action) + self.temperature * (entropy + 0.5)
        return torch.stack([r[0], r[1] + gamma * soft[1], r[2] + gamma * soft[2]])

    def update(self, window: Window, order: Tensor, next_eps: Tensor, eps: Tensor) -> None:
        s, a = window.obs[:, 0].double(), window.action[:, 0, 0].double()
        target = self.targets(window, next_eps)
        old_mean, old_log_std = (x.detach() for x in self.gaussian(s))
        for count, (rows, noise) in enumerate(zip(order, eps, strict=True), 1):
            error = (self.value(s[rows], a[rows]) - target[rows]) ** 2
            self.adam(error.mean(), [self.q, self.c], 2.0, count, 0.2)
            mean, log_std = self.gaussian(s[rows])
            action, entropy = self.draw(s[rows], noise)
            shift = (mean - old_mean[rows]) / log_std.exp()
            ratio = (old_log_std[rows] - log_std).exp()
            kl = log_std - old_log_std[rows] + (ratio**2 + shift**2 - 1) / 2
            beta = self.log_beta.exp()
            climb = self.value(s[rows], action) + self.alpha(entropy) * entropy
            pull = beta.detach() * kl
            if self.config.kl_constraint == "mask":
                policy = torch.where(kl < self.config.kl_bound, -climb, pull).mean()
            else:
                policy = (pull - climb).mean()
            dual = beta * (self.config.kl_bound - kl.detach().mean())
            self.adam(policy, [self.w, self.b], 1.0, count, 0.1)
            with torch.no_grad():  # a tenth of a nat off its target is enough for the full speed
                self.log_alpha -= 0.1 * min(1.0, max(-1.0, float(entropy.mean() + 0.5) / 0.1))
            self.adam(dual, [self.log_beta], math.inf, count, 0.3)


@pytest.mark.parametrize("kl_bound", [0.1, 1e-12])
@pytest.mark.parametrize("kl_constraint", CONSTRAINTS)
def test_the_update_is_the_one_by_hand(kl_constraint: str, kl_bound: float) -> None:
    """Two epochs on three steps; with the small bound and the mask, the second only pulls back."""
    agent = pendulum(**LINEAR, kl_constraint=kl_constraint, kl_bound=kl_bound)
    window = agent.collect()
    window = ended(window, flags(window, 0), flags(window, 1))
    by_hand = ByHand(agent)
    noise = copy.deepcopy(agent.noise.get_state())
    draws = torch.Generator()
    draws.set_state(noise)
    next_eps = torch.randn(3, 1, 1, generator=draws)[:, 0, 0].double()
    eps = torch.randn(2, 3, 1, generator=draws)[..., 0].double()
    minibatches = torch.Generator()
    minibatches.set_state(agent.generator.get_state())
    order = torch.stack([torch.randperm(3, generator=minibatches) for _ in range(2)])
    metrics = agent.update(window)
    by_hand.update(window, order, next_eps, eps)
    found = whole(agent)
    for name, expected in {
        "policy.head.output.weight": by_hand.w,
        "policy.head.output.bias": by_hand.b,
        "critic.members.0.network.0.weight": by_hand.q,
        "critic.members.0.network.0.bias": by_hand.c,
        "duals.log_alpha": by_hand.log_alpha,
        "duals.log_beta": by_hand.log_beta,
    }.items():
        torch.testing.assert_close(
            found[name].double(), expected.detach(), rtol=1e-5, atol=1e-6, msg=name
        )
    assert float(metrics["train/ent_coef"]) == pytest.approx(float(by_hand.temperature))
    assert float(metrics["train/kl_exceeded"]) == float(kl_bound < 0.1)


def test_the_policy_that_is_evaluated_is_the_mean_of_those_that_acted() -> None:
    """``mean <- d mean + (1 - d) policy``, ``d = min(0.3, n / (n + 9))``; buffers are the last."""
    agent = pendulum(policy_average=0.3)
    assert evaluated_policy(agent) is agent.averaged_policy
    mean: dict[str, Tensor] = {}
    for n in range(6):
        agent.update(agent.collect())
        kept = min(0.3, n / (n + 9))
        for name, parameter in agent.policy.named_parameters():
            x = parameter.detach().double()
            mean[name] = kept * mean[name] + (1 - kept) * x if n else x
    for name, parameter in agent.averaged_policy.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), mean[name], rtol=1e-6, atol=1e-7)
    buffers = zip(agent.averaged_policy.buffers(), agent.policy.buffers(), strict=True)
    assert all(torch.equal(mine, its) for mine, its in buffers)


def test_without_an_average_the_policy_itself_is_evaluated() -> None:
    agent = pendulum(policy_average=0.0)
    for _ in range(2):
        agent.update(agent.collect())
    for mine, its in zip(
        evaluated_policy(agent).parameters(), agent.policy.parameters(), strict=True
    ):
        assert torch.equal(mine, its)


# Published defects ------------------------------------------------------------------------------


def test_no_entropy_is_added_where_an_episode_terminates() -> None:
    """There, the target is the reward, whatever an entropy is worth."""
    agent = pendulum(ent_coef=1e3)
    window = agent.collect()
    every, none = torch.ones_like(window.terminated), torch.zeros_like(window.terminated)
    assert torch.equal(agent.targets(ended(window, every, none)), window.reward)
    assert not torch.allclose(agent.targets(ended(window, none, every)), window.reward, atol=1.0)


def test_an_entropy_at_its_target_is_worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the weight of an entropy is; with ``alpha H`` every step would cost."""
    found = []
    for weight in (1e-12, 1e3):
        agent = pendulum(ent_coef=weight)
        at_target = torch.full((16, 4), agent.entropy_target)
        monkeypatch.setattr(agent, "entropy", lambda *_, at_target=at_target: at_target)
        found.append(agent.targets(agent.collect()))
    assert torch.equal(*found) and agent.critic.entropy_target == agent.entropy_target == -0.5


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
def test_targets_bootstrap_at_a_time_limit_and_not_at_a_termination(lambda_: float) -> None:
    """With a critic of 100 everywhere and no entropy, the soft value of every next state is 100."""
    agent = pendulum(critic="mse", gamma=0.9, gae_lambda=lambda_, ent_coef=1e-12)
    with torch.no_grad():
        for name, p in agent.q.named_parameters():
            p.zero_()
            if name.endswith("network.3.bias"):
                p.fill_(100.0)
    window = agent.collect()
    window = ended(window, flags(window, 3), flags(window, 7))
    expected, following = torch.empty_like(window.reward), torch.full((4,), 100.0)
    for t in range(15, -1, -1):
        after = {3: 0.0, 7: 100.0, 15: 100.0}.get(t, (1 - lambda_) * 100 + lambda_ * following)
        following = window.reward[t] + 0.9 * after
        expected[t] = following
    torch.testing.assert_close(agent.targets(window), expected)


def test_every_minibatch_of_an_epoch_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, seen = pendulum(n_epochs=3), []
    run = agent.minibatches.run

    def spy(
        batch: Batch, rows: Tensor, rate: float, noise: Tensor, bounds: Tensor
    ) -> dict[str, Tensor]:
        seen.append(noise)
        return run(batch, rows, rate, noise, bounds)

    monkeypatch.setattr(agent.minibatches, "run", spy)
    for _ in range(2):
        agent.update(agent.collect())
    noise = torch.stack(seen)
    assert noise.shape == (2, 12, 16, 1)
    assert len(set(noise.flatten().tolist())) == noise.numel()


def test_the_last_step_of_a_window_is_fitted_and_keeps_its_flags() -> None:
    """Another reward there is another target there, and another critic after the update."""
    first, second = pendulum(), pendulum()
    window = first.collect()
    second.collect()
    before = [x.clone() for x in (window.truncated, window.terminated, window.segment_end)]
    reward = window.reward.clone()
    reward[-1] += 3.0
    batch = {}
    for name, agent, given in (
        ("first", first, window),
        ("second", second, dataclasses.replace(window, reward=reward)),
    ):
        agent.config = dataclasses.replace(agent.config, gae_lambda=0.0)
        run = agent.minibatches.run

        def spy(*inputs: Any, run: Any = run, name: str = name) -> dict[str, Tensor]:
            batch[name] = inputs[0]
            found: dict[str, Tensor] = run(*inputs)
            return found

        agent.minibatches.run = spy  # type: ignore[method-assign, assignment]
        agent.update(given)
    changed = (batch["first"].target != batch["second"].target).any(-1).view(16, 4)
    assert changed[-1].all()
    assert not changed[:-1].any()
    one, other = whole(first), whole(second)
    assert any(not torch.equal(one[k], other[k]) for k in one if k.startswith("critic"))
    for x, y in zip(before, (window.truncated, window.terminated, window.segment_end), strict=True):
        assert torch.equal(x, y)


def test_nothing_but_their_gradients_moves_the_dual_variables() -> None:
    """No weight decay: a step without a gradient leaves every parameter as it is, to the bit."""
    agent = pendulum()
    states = agent.minibatches._split(agent.minibatches.state)
    for one, state in zip(agent.minibatches.objectives, states, strict=True):
        after, _ = one.rule.step(state, torch.zeros_like(state.parameters), torch.tensor(0.1))
        assert torch.equal(after.parameters, state.parameters)
    loss = reppo.reppo_loss(
        torch.zeros(3),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([0.25, 0.5, 0.75]),
        *agent.duals(),
        constrained=penalised,
        entropy_target=2.0,
        action_size=5,
        kl_bound=0.5,
        full_kl_bound=0.5,
    )[0]
    for gradient in torch.autograd.grad(loss, list(agent.duals.parameters())):
        assert float(gradient) == 0


BOUNDS: dict[str, Any] = {
    "constrained": penalised,
    "entropy_target": -0.5,
    "action_size": 20,
    "kl_bound": 0.1,
    "full_kl_bound": 0.4,
}


@pytest.mark.parametrize(
    ("entropy", "divergence", "speed"),
    [(0.5, 0.3, 0.25), (-1.5, 0.01, -0.25), (9.0, 0.1, 0.5), (-9.0, 0.1, -0.5)],
)
def test_dual_variables_fall_where_their_condition_holds(
    entropy: float, divergence: float, speed: float
) -> None:
    """``d/dlog alpha = 1/2 (H - target) / 2``, up to 1/2, and ``d/dlog beta = beta (bound - KL)``.

    Of 20 action dimensions, a tenth of a nat of each is the 2; and the bound is a quarter of the
    first one, so that ``alpha`` is half as fast.
    """
    duals = Duals(0.5, 2.0)
    inputs = torch.zeros(4), torch.full((4,), entropy), torch.full((4,), divergence)
    loss, _ = reppo.reppo_loss(*inputs, *duals(), **BOUNDS)
    by_alpha, by_beta = torch.autograd.grad(loss, list(duals.parameters()))
    assert float(by_alpha) == pytest.approx(speed)
    assert float(by_beta) == pytest.approx(2.0 * (0.1 - divergence))


@pytest.mark.parametrize(("entropy", "speed"), [(0.5, 0.0), (-1.5, -0.25)])
def test_the_weight_of_the_entropy_has_a_least_value(entropy: float, speed: float) -> None:
    """There it only rises."""
    duals = Duals(0.5, 2.0)
    inputs = torch.zeros(4), torch.full((4,), entropy), torch.full((4,), 0.1)
    loss, _ = reppo.reppo_loss(*inputs, *duals(), **BOUNDS, least_alpha=0.5)
    assert float(torch.autograd.grad(loss, duals.log_alpha)[0]) == pytest.approx(speed)


@pytest.mark.parametrize(("divergence", "expected"), [(0.3, 0.0), (0.05, 0.1)])
def test_the_weight_of_the_divergence_has_an_end(divergence: float, expected: float) -> None:
    """There it only falls; otherwise it would rise until a gradient overflows."""
    duals = Duals(0.5, 2.0)
    inputs = torch.zeros(4), torch.zeros(4), torch.full((4,), divergence)
    loss, _ = reppo.reppo_loss(*inputs, *duals(), **BOUNDS, most_beta=2.0)
    assert float(torch.autograd.grad(loss, duals.log_beta)[0]) == pytest.approx(expected)


def test_the_divergence_is_the_closed_form_and_not_a_sample() -> None:
    """Against torch's; and against numerical integration over the squashed action."""
    generator = torch.Generator().manual_seed(0)
    mean, log_std, other, other_log = torch.randn(4, 7, 3, generator=generator, dtype=torch.float64)
    found = gaussian_kl(GaussianParameters(mean, log_std), GaussianParameters(other, other_log))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean, log_std.exp()), normal(other, other_log.exp())
    )
    torch.testing.assert_close(found, expected.sum(-1))
    old, new = GaussianParameters(*torch.tensor([[[0.3]], [[-0.4]]])), None
    new = GaussianParameters(*torch.tensor([[[-0.2]], [[0.1]]]))
    box = torch.tensor([-2.0]), torch.tensor([2.0])
    action = torch.linspace(-2, 2, 200_003, dtype=torch.float64)[1:-1, None]
    p, q = (
        TanhGaussian(*(x.double() for x in g), *(x.double() for x in box)).log_prob(action)
        for g in (old, new)
    )
    integral = ((p - q) * p.exp()).sum() * (action[1, 0] - action[0, 0])
    assert float(gaussian_kl(old, new)) == pytest.approx(float(integral), rel=1e-3)


# The three estimators ---------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("critic", ["hl_gauss", "mse"])
@pytest.mark.parametrize("std", ["state_dependent", "state_independent"])
def test_every_estimator_trains(estimator: str, critic: str, std: str) -> None:
    agent = pendulum(estimator=estimator, critic=critic, std=std, num_critics=2)
    before = whole(agent)
    for _ in range(3):
        metrics = agent.update(agent.collect())
    after = whole(agent)
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    assert moved == list(before)
    wanted = "policy_gradient_loss critic_loss entropy_loss approx_kl kl_exceeded ent_coef kl_coef"
    wanted += " explained_variance learning_rate std gradient_norm reward_scale"
    assert {f"train/{word}" for word in wanted.split()} <= metrics.keys()
    assert all(bool(torch.isfinite(v).all()) for v in metrics.values())


def twin(new: GaussianParameters, size: int) -> tuple[Any, dict[str, Tensor]]:
    """The estimators' gradients ``[M, 2]`` of ``E[Q]`` of ``new``, from actions of an old policy.

    ``Q(a) = -(a - 1)^2 + sin 3a``, exact. The gradients are by the mean and the log standard
    deviation of each sample.
    """
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor([-2.0]).double(), torch.tensor([2.0]).double()
    taken, fresh = torch.randn(2, size, 1, generator=generator, dtype=torch.float64)

    def q(action: Tensor) -> Tensor:
        return (-((action - 1) ** 2) + torch.sin(3 * action))[..., 0]

    def at(gaussian: GaussianParameters) -> TanhGaussian:
        mean, log_std = (x.double().expand(size, 1).clone().requires_grad_() for x in gaussian)
        return TanhGaussian(mean, log_std, low, high)

    old = at(GaussianParameters(torch.tensor(0.2), torch.tensor(-0.3)))
    distribution = at(new)
    with torch.no_grad():
        pre_action = old.pre_action(taken)
        returns = q(old.squash(pre_action))
        returns = returns + torch.randn(size, generator=generator, dtype=torch.float64)
        log_prob = old.log_prob_of_pre_action(pre_action)
    none = torch.zeros(size)
    mini = Batch(none, pre_action, none, log_prob, none, none, none, returns - returns.mean())
    value = q(distribution.squash(distribution.pre_action(fresh)))
    found = {}
    for name, surrogate in SURROGATES.items():
        parts = surrogate(distribution, value, mini)
        gaussian = distribution.mean, distribution.log_std
        gradients = torch.autograd.grad(parts.sum(), gaussian, retain_graph=True)
        found[name] = torch.cat(gradients, -1)
    return distribution, found


@pytest.mark.parametrize("new", [(0.2, -0.3), (0.35, -0.45)])
def test_with_the_true_q_all_estimators_agree(new: tuple[float, float]) -> None:
    """Their means, of 200,000 actions, within 4.5 standard errors; also away from the old policy.

    The mix varies less than both: with independent samples the least variance is ``ab / (a + b)``.
    """
    _, found = twin(GaussianParameters(*(torch.tensor(x) for x in new)), 200_000)
    variance = {name: rows.var(0).sum() for name, rows in found.items()}
    for name in ("score_function", "mixed"):
        difference = found[name] - found["critic"]
        error = difference.std(0) / len(difference) ** 0.5
        assert bool((difference.mean(0).abs() < 4.5 * error).all()), name
    assert bool((found["critic"].mean(0).abs() > 20 * found["critic"].std(0) / 200_000**0.5).any())
    assert variance["mixed"] < min(variance["critic"], variance["score_function"])


def test_the_mixs_weight_is_the_other_halfs() -> None:
    """Other numbers in the first half change the weight of the second half only."""
    torch.manual_seed(0)
    mean, log_std = torch.randn(8, 1), torch.randn(8, 1)
    box = torch.tensor([-2.0]), torch.tensor([2.0])

    def weight(change: float) -> Tensor:
        factor = torch.cat([torch.full((4,), change), torch.ones(4)])
        own = mean.clone().requires_grad_(), log_std.clone().requires_grad_()
        distribution = TanhGaussian(*own, *box)
        both = distribution.mean + distribution.log_std
        return least_variance_weight(
            distribution, (torch.sin(both)[:, 0] * factor), torch.cos(3 * both)[:, 0]
        )

    before, after = weight(1.0), weight(5.0)
    assert torch.equal(before[:4], after[:4])
    assert not torch.equal(before[4:], after[4:])
    assert len(set(before.tolist())) == 2


# What is measured -------------------------------------------------------------------------------


def measured(agent: Reppo, window: Window) -> tuple[dict[str, Gradients], dict[str, Tensor]]:
    """The gradients of every step that an update measures, by estimator, and its metrics."""
    found: dict[str, Gradients] = {}
    report = agent.monitor.report

    def spy(gradients: Mapping[str, SampleGradients], pairs: Any = ()) -> dict[str, Tensor]:
        for name, factors in gradients.items():
            found[name] = {key: dense(gradient) for key, gradient in factors.items()}
        return report(gradients, pairs)

    agent.monitor.report = spy  # type: ignore[method-assign]
    return found, agent.update(window)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_measured_gradients_are_those_that_are_climbed(estimator: str) -> None:
    """On every minibatch the mean is minus the gradient of the policy's loss, without a step.

    With each estimator as the setting; the minibatches and their noise are the measurement's.
    """
    agent = pendulum(estimator=estimator, diagnostics_interval=1)
    agent.update(agent.collect())
    window = agent.collect()
    before = copy.deepcopy(agent)
    batches: list[Batch] = []
    run = agent.minibatches.run

    def keep(batch: Batch, *inputs: Any) -> dict[str, Tensor]:
        batches.append(batch)
        return run(batch, *inputs)

    agent.minibatches.run = keep  # type: ignore[method-assign, assignment]
    found, _ = measured(agent, window)
    generator = before.critic_monitor.generator
    rows = draw_minibatches(64, 16, 1, generator)
    noise = before.policy.draw_noise(*rows.shape, generator=generator)
    functions = {name: FlatModule(module) for name, module in before.minibatches.modules.items()}
    modules = {name: function.at(function.flat()) for name, function in functions.items()}
    own, weights = functions["policy"], functions["policy"].flat().requires_grad_()
    modules["policy"] = own.at(weights)
    names = [name for name, _ in own.module.named_parameters()]
    for place, (index, eps) in enumerate(zip(rows, noise, strict=True)):
        mini = Batch(*(x[index] for x in batches[0]))
        loss, _ = before.policy_loss(modules, mini, eps, torch.tensor(1.0))
        (gradient,) = torch.autograd.grad(loss, weights)
        for name, expected in zip(names, unflatten(gradient, own.parameters), strict=True):
            mean = found[estimator][name][place * 16 : (place + 1) * 16].mean(0)
            torch.testing.assert_close(mean, -expected, rtol=1e-4, atol=1e-5, msg=name)


def test_the_variance_of_a_tiny_window_is_the_one_by_hand() -> None:
    """Three steps; each gradient by autograd of formulas of its own, in float64.

    The score function's is ``(G - V(s)) dlog pi + alpha dH``, with ``V`` the mean of ``Q`` at four
    actions, and the critic's that of ``Q(s, a) + alpha H``. Nobody follows the score function.
    """
    agent = pendulum(**LINEAR, diagnostics_interval=1, probe_steps=0)
    window = agent.collect()
    window = ended(window, flags(window, 0), flags(window, 1))
    by_hand = ByHand(agent)
    streams = [agent.noise, agent.baseline_noise, agent.critic_monitor.generator]
    updates, baseline, own = (torch.Generator() for _ in streams)
    for copied, generator in zip((updates, baseline, own), streams, strict=True):
        copied.set_state(generator.get_state())
    next_eps = torch.randn(3, 1, 1, generator=updates)[:, 0, 0].double()
    others = [torch.randn(3, 1, 1, generator=baseline)[:, 0, 0].double() for _ in range(4)]
    order = torch.randperm(3, generator=own)
    eps = torch.randn(1, 3, 1, generator=own)[0, :, 0].double()
    s, u = window.obs[:, 0].double(), window.pre_action[:, 0, 0].double()
    with torch.no_grad():
        value = torch.stack([by_hand.value(s, by_hand.draw(s, x)[0]) for x in others]).mean(0)
        advantage = by_hand.targets(window, next_eps) - value
    gradients: dict[str, list[Tensor]] = {"score_function": [], "critic": []}
    alpha = by_hand.alpha(by_hand.draw(s[order], eps)[1])
    for step, noise in zip(order.tolist(), eps, strict=True):
        at = s[step : step + 1]
        action, entropy = by_hand.draw(at, noise)
        mean, log_std = by_hand.gaussian(at)
        log_prob = -0.5 * ((u[step] - mean) / log_std.exp()) ** 2 - log_std
        terms = {
            "score_function": advantage[step] * log_prob,
            "critic": by_hand.value(at, action),
        }
        for name, term in terms.items():
            total = (term + alpha * entropy).sum()
            parts = torch.autograd.grad(total, [by_hand.w, by_hand.b], retain_graph=True)
            gradients[name].append(torch.cat([x.flatten() for x in parts]))
    metrics = agent.update(window)
    rows = {name: torch.stack(parts) for name, parts in gradients.items()}
    for name, values in rows.items():
        variance = values.var(0).sum()
        signal = values.mean(0).square().sum() - variance / 3
        for what, expected in (("variance", variance), ("signal", signal)):
            found = float(metrics[f"gradient/{name}/{what}"])
            assert found == pytest.approx(float(expected), rel=1e-4), (name, what)
    difference = rows["score_function"] - rows["critic"]
    bias = difference.mean(0).square().sum() - difference.var(0).sum() / 3
    found = float(metrics["gradient/critic_on_states/bias"])
    assert found == pytest.approx(float(bias), rel=1e-3)


def test_the_mix_that_is_measured_varies_less_than_both() -> None:
    """Its weights are those of the least variance by the Gaussian's parameters, of a minibatch.

    So by the policy's parameters, and with weights of 32 steps, it is near the least variance of a
    weighted mean, that of independent samples, and below the smaller one of the two.
    """
    agent = pendulum(
        estimator="mixed",
        num_envs=32,
        n_steps=32,
        batch_size=64,
        std="state_independent",
        diagnostics_interval=1,
    )
    for _ in range(3):
        metrics = agent.update(agent.collect())
        critic, score, mixed = (
            float(metrics[f"gradient/{name}/variance"])
            for name in ("critic", "score_function", "mixed")
        )
        assert mixed < 1.1 * min(critic, score)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_resumed_agent_measures_the_same(estimator: str) -> None:
    first, second = (pendulum(estimator=estimator, diagnostics_interval=1) for _ in range(2))
    first.update(first.collect())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    one, other = (agent.update(agent.collect()) for agent in (first, second))
    for tag in one.keys() - {"gradient/overhead"}:
        assert torch.equal(one[tag], other[tag]), tag


# Compiled, resumed, refused ---------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_compiled_steps_are_the_plain_ones(
    estimator: str, caplog: pytest.LogCaptureFixture
) -> None:
    # With a small epsilon the first step has the size of the rate whatever the gradient's is, and a
    # gradient that is nothing but rounding decides its sign.
    plain, compiled = (pendulum(estimator=estimator, adam_epsilon=1e-3) for _ in range(2))
    compiled.minibatches.compiled = True
    for index in range(2):
        for agent in (plain, compiled):
            metrics = agent.update(agent.collect())
            assert (f"gradient/{estimator}/variance" in metrics) == (index == 0)
    assert not any("not compiled" in record.getMessage() for record in caplog.records)
    other = whole(compiled)
    for name, expected in whole(plain).items():
        torch.testing.assert_close(other[name], expected, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_resumed_agent_goes_on_exactly(estimator: str) -> None:
    first, second = pendulum(estimator=estimator), pendulum(estimator=estimator)
    first.update(first.collect())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for agent in (first, second):
        agent.update(agent.collect())
    one, other = whole(first), whole(second)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_measuring_changes_nothing_that_is_learned(estimator: str) -> None:
    ends = []
    for interval in (0, 1):
        agent = pendulum(estimator=estimator, diagnostics_interval=interval)
        for _ in range(2):
            metrics = agent.update(agent.collect())
        assert ("gradient/score_function/variance" in metrics) == bool(interval)
        ends.append(whole(agent))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode))
def test_it_trains_under_every_autoreset_mode(mode: Any) -> None:
    env = gymnasium.make_vec(
        "Pendulum-v1", 4, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )
    agent = Reppo(ReppoConfig(**SMALL), env, seed=0)
    for _ in range(4):
        metrics = agent.update(agent.collect())
    assert all(bool(torch.isfinite(v).all()) for v in metrics.values())


def test_bad_numbers_name_where_they_began() -> None:
    agent = pendulum()
    window = agent.collect()
    reward = window.reward.clone()
    reward[5, 2] = math.nan
    with pytest.raises(NonFiniteError, match=r"reward .* step 5 .* environment 2"):
        agent.update(dataclasses.replace(window, reward=reward))
    agent = pendulum(critic="mse", normalize_rewards=False)
    window = agent.collect()
    reward = window.reward.clone()
    reward[5, 2] = 1e30
    with pytest.raises(NonFiniteError, match=r"critic loss of minibatch \d"):
        agent.update(dataclasses.replace(window, reward=reward))


def test_the_view_of_the_critic_is_in_the_unit_of_updates() -> None:
    agent = pendulum()
    assert agent.critic.reward_scale == 1.0
    agent.update(agent.collect())
    view = agent.critic
    assert view.module is agent.q
    assert view.temperature == agent.duals.temperature.item()
    assert view.reward_scale == float(agent.collector.reward_normalizer.scale)
    assert pendulum(normalize_rewards=False).critic.reward_scale == 1.0


class Lever(gymnasium.Env[Any, Any]):
    """Pays for being near 0.3 of the way to a bound that has any unit."""

    observation_space = Box(-9, 9, (2,), np.float32)

    def __init__(self, bound: float) -> None:
        self.bound, self.action_space = bound, Box(-bound, bound, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        obs = self.np_random.normal(size=2).astype(np.float32)
        reward = -float(((action / self.bound - 0.3) ** 2).sum())
        return obs, reward, self.count % 5 == 0, False, {}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_unit_of_actions_does_not_matter(estimator: str) -> None:
    """Bounds of 1 and of 1024: the critic and the entropy see actions in units of their box."""
    found = []
    for bound in (1.0, 1024.0):
        env = gymnasium.vector.SyncVectorEnv([functools.partial(Lever, bound) for _ in range(4)])
        agent = Reppo(ReppoConfig(**(SMALL | {"estimator": estimator})), env, seed=0)
        for _ in range(3):
            metrics = agent.update(agent.collect())
        found.append((whole(agent), metrics["train/ent_coef"]))
    for name, expected in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[1][1], found[0][1])


@pytest.mark.parametrize(("given", "expected"), [(None, -1.0), (-0.5, -0.5), (3.0, 3.0)])
def test_the_entropy_has_a_target_for_all_dimensions_together(
    given: float | None, expected: float
) -> None:
    """As in sac, whose entropy is minus the log density of the action in units of its box."""
    env = gymnasium.vector.SyncVectorEnv([functools.partial(Lever, 3.0) for _ in range(4)])
    agent = Reppo(ReppoConfig(**(SMALL | {"target_entropy": given})), env, seed=0)
    assert agent.entropy_target == expected
    distribution = agent.policy(torch.zeros(4000, 2))
    noise = agent.policy.draw_noise(4000, generator=torch.Generator().manual_seed(0))
    in_box = -log_prob_in_box(distribution, distribution.pre_action(noise))
    error = (in_box - agent.entropy(distribution, noise)).detach()
    assert abs(float(error.mean())) < 4.5 * float(error.std()) / 4000**0.5


def test_discrete_actions_are_refused() -> None:
    env = gymnasium.make_vec("CartPole-v1", 4)
    with pytest.raises(RequestError, match="continuous actions"):
        Reppo(ReppoConfig(**SMALL), env)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_bound": 0.0}, "kl_bound must be above 0"),
        ({"ent_coef": 0.0}, "ent_coef must be above 0"),
        ({"kl_coef": 0.0}, "kl_coef must be above 0"),
        ({"gae_lambda": 1.5}, "gae_lambda must be between 0 and 1"),
        ({"baseline_samples": 0}, "baseline_samples must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ReppoConfig(**(SMALL | settings))
