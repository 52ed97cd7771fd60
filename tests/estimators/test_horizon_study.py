"""The horizon study, against closed forms."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.analytic.lqg.env import LQG, LQGState
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import StudyEstimator
from pgtoolkit.estimators.horizon_study import Measurement, measure_horizon, sample
from pgtoolkit.estimators.soft_value import SoftCritic
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy

ALL: tuple[StudyEstimator, ...] = ("score_function", "pathwise", "mixed")
N = 4000


class OneStep(DifferentiableEnv[Tensor]):
    """One action, nothing to see; the reward is for subclasses."""

    observation_space = Box(-1.0, 1.0, (1,))
    action_space = Box(-math.inf, math.inf, (1,))
    max_episode_steps = 3

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return action

    def observation(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """``(x + 3)^2``, the published case k = -3."""
        return (next_state[:, 0] + 3) ** 2

    def terminal(self, state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0], dtype=torch.bool)


class Jump(OneStep):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return (next_state[:, 0].detach() > 0).float()


class Root(OneStep):
    """An environment with a finite reward whose derivative is not finite."""

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        x = next_state[:, 0]
        return x + (x - x.detach()).abs().sqrt()


class Runaway(OneStep):
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return next_state[:, 0] / 0


def linear_policy(env: DifferentiableEnv, gain: float, offset: float, sigma: float) -> Policy:
    """``u = gain s + offset + sigma eps``; by log-sigma, gradients are times sigma."""
    policy = GaussianPolicy(
        env.observation_space, env.action_space, (), log_std_init=math.log(sigma)
    )
    layer = policy.head.output
    assert isinstance(layer, nn.Linear)
    nn.init.constant_(layer.weight, gain)
    nn.init.constant_(layer.bias, offset)
    return policy


def measure(
    env: DifferentiableEnv,
    policy: Policy,
    horizon: int,
    *,
    gamma: float,
    num: int = N,
    estimators: tuple[StudyEstimator, ...] = ALL,
    seed: int = 0,
) -> dict[str, Measurement]:
    vector = DifferentiableVectorEnv(env, num)
    rows = measure_horizon(
        vector, policy, horizon, trajectories=num, estimators=estimators, gamma=gamma, seed=seed
    )
    return {row.estimator: row for row in rows}


def variance_errors(
    env: DifferentiableEnv, policy: Policy, horizon: int, *, gamma: float, exact: dict[str, float]
) -> dict[str, float]:
    """Distance of the mean variance of 20 studies of 1000 trajectories from the exact one.

    In standard errors of that mean, for each estimator in ``exact``.
    """
    found = [measure(env, policy, horizon, gamma=gamma, num=1000, seed=seed) for seed in range(20)]
    errors = {}
    for name, truth in exact.items():
        values = np.array([study[name].variance for study in found])
        error = values.std(ddof=1) / math.sqrt(len(values))
        assert error < 0.08 * truth, "too wide: a third would not be seen"
        errors[name] = abs(values.mean() - truth) / error
    return errors


def signal_errors(row: Measurement, exact: float) -> float:
    error = (row.signal_high - row.signal_low) / (2 * 1.96)
    return abs(row.signal - exact) / error


@pytest.mark.parametrize("horizon", [5, 9])
def test_lqg_has_the_published_variance_and_signal(horizon: int) -> None:
    """The reference values, by K, k and log sigma; at 9 steps too, for its episode ends after 5.

    The same variance per step, or of a window that goes on after the end, would be far away.
    """
    found = measure(LQG(), linear_policy(LQG(), -0.4, 0.2, 0.3), horizon, gamma=0.95)
    exact = 14.33524067 + 6.64592513 + 0.3**2 * 7.79779941
    signal = 4.52081375**2 + 4.73344223**2 + (0.3 * 1.29775712) ** 2
    policy = linear_policy(LQG(), -0.4, 0.2, 0.3)
    errors = variance_errors(LQG(), policy, horizon, gamma=0.95, exact={"pathwise": exact})
    assert errors["pathwise"] < 4.5
    for row in found.values():
        assert signal_errors(row, signal) < 4.5
        assert row.mean_length == 5 and row.horizon == horizon
    assert found["pathwise"].bias_z < 4.5 and found["mixed"].bias_z < 4.5
    # The reward-to-go without a baseline has 920 + 446 + 80: a baseline must help.
    assert found["pathwise"].variance < found["score_function"].variance < 1446


def test_a_quadratic_has_the_closed_forms_of_both_estimators() -> None:
    """With m = s = 1, f = (x + 3)^2: pathwise 4 + 72, score function 138 + 696.

    These have the baseline E f, to which leave-one-out adds Var f tr I / N = 66 * 3 / 4000:
    nothing. The gradient is 8 and 2.
    """
    found = measure(OneStep(), linear_policy(OneStep(), 0.0, 1.0, 1.0), 1, gamma=1.0)
    policy = linear_policy(OneStep(), 0.0, 1.0, 1.0)
    exact = {"pathwise": 76.0, "score_function": 834.0}
    errors = variance_errors(OneStep(), policy, 1, gamma=1.0, exact=exact)
    assert max(errors.values()) < 4.5
    for row in found.values():
        assert signal_errors(row, 68) < 4.5
        assert row.snr == pytest.approx(row.signal / row.variance)
        assert row.noise_scale == pytest.approx(1 / row.snr)


@pytest.mark.parametrize("horizon", [3, 5, 10])
def test_chaos_has_the_closed_forms_of_both_estimators(horizon: int) -> None:
    """All reward comes at the end, so the leave-one-out baseline is E f at every step."""
    env = Chaos(horizon=horizon)
    policy = linear_policy(env, 0.0, 0.0, 0.1)
    by, expected = env.exact_gradient(0.0, 0.1), env.expected_return(0.0, 0.1)
    pathwise = by.mean.pathwise_variance + 0.1**2 * by.sigma.pathwise_variance
    score = by.mean.baseline_variance(expected) + 0.1**2 * by.sigma.baseline_variance(expected)
    exact = {"pathwise": pathwise, "score_function": score}
    assert max(variance_errors(env, policy, horizon, gamma=1.0, exact=exact).values()) < 4.5


def test_a_jump_gives_a_pathwise_gradient_of_zero_and_a_bias() -> None:
    """No path joins action and reward. f = 1[x > 0] at m = 0, s = 1: the bias is phi(0)^2."""
    found = measure(Jump(), linear_policy(Jump(), 0.0, 0.0, 1.0), 1, gamma=1.0)
    pathwise = found["pathwise"]
    assert pathwise.variance == pathwise.signal == 0 and pathwise.bias_z > 5
    error = (pathwise.bias_high - pathwise.bias_low) / (2 * 1.96)
    assert abs(pathwise.bias - 0.39894228**2) < 4.5 * error
    assert math.isnan(found["score_function"].bias_z)


def test_a_gradient_that_is_not_finite_is_a_finding() -> None:
    """Statistics of pathwise and of mixed are NaN; those of the score function are measured."""
    found = measure(Root(), linear_policy(Root(), 0.0, 0.0, 1.0), 1, gamma=1.0)
    for name in ("pathwise", "mixed"):
        assert math.isnan(found[name].variance) and math.isnan(found[name].bias_z)
    assert found["score_function"].variance > 0


def test_a_reward_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match="reward is not finite at step 0"):
        measure(Runaway(), linear_policy(Runaway(), 0.0, 0.0, 1.0), 1, gamma=1.0, num=10)


def numbers(row: Measurement) -> dict[str, object]:
    """All fields of a measurement but the wall times, which differ between runs."""
    fields = dataclasses.asdict(row).items()
    return {k: v for k, v in fields if not k.startswith("seconds")}


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    """The bits are the same even after another horizon was measured in the same environments."""
    policy = linear_policy(LQG(), -0.4, 0.2, 0.3)
    vector = DifferentiableVectorEnv(LQG(), 20)

    def at(horizon: int, seed: int) -> list[dict[str, object]]:
        rows = measure_horizon(
            vector, policy, horizon, trajectories=20, estimators=ALL[:2], gamma=0.9, seed=seed
        )
        return [numbers(row) for row in rows]

    first = at(4, 0)
    at(3, 0)
    assert str(at(4, 0)) == str(first)
    assert at(4, 1)[0]["variance"] != first[0]["variance"]


def test_few_environments_run_as_many_batches_as_it_takes() -> None:
    """Seven trajectories in three environments: seven different starts, each with its own noise."""
    env = SyncVectorEnv(
        [lambda: gymnasium.make("Pendulum-v1")] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    )
    policy = GaussianPolicy(env.single_observation_space, env.single_action_space, (4,))
    noise = torch.randn(5, 7, 1, generator=torch.Generator().manual_seed(0))
    window = sample(env, policy, noise, seed=3)
    assert torch.equal(window.noise, noise)
    assert len({tuple(start.tolist()) for start in window.obs[0]}) == 7
    assert torch.equal(sample(env, policy, noise, seed=3).reward, window.reward)


def test_python_objects_and_tensors_show_the_same_score_function() -> None:
    """Gymnasium's Pendulum and ours, whose equations are the same, within both intervals."""
    rows = []
    policy = GaussianPolicy(Pendulum().observation_space, Pendulum().action_space, (8,))
    objects = SyncVectorEnv(
        [lambda: gymnasium.make("Pendulum-v1")] * 20, autoreset_mode=AutoresetMode.SAME_STEP
    )
    for env in (objects, DifferentiableVectorEnv(Pendulum(), 400)):
        rows += measure_horizon(
            env, policy, 4, trajectories=400, estimators=ALL[:1], gamma=0.99, seed=0
        )
    logs = [math.log(row.variance) for row in rows]
    errors = [math.log(row.variance_high / row.variance_low) / (2 * 1.96) for row in rows]
    assert abs(logs[0] - logs[1]) < 4.5 * math.hypot(*errors)


def test_discrete_actions_have_a_score_function() -> None:
    """CartPole ends early: steps after the end count for nothing, not even for the length."""
    env = SyncVectorEnv(
        [lambda: gymnasium.make("CartPole-v1")] * 10, autoreset_mode=AutoresetMode.SAME_STEP
    )
    policy = CategoricalPolicy(env.single_observation_space, env.single_action_space, (4,))
    (row,) = measure_horizon(
        env, policy, 40, trajectories=50, estimators=ALL[:1], gamma=0.99, seed=0
    )
    assert row.variance > 0 and 8 <= row.mean_length < 40
    with pytest.raises(RequestError, match="no gradient"):
        measure_horizon(env, policy, 4, trajectories=10, estimators=ALL, gamma=1.0, seed=0)


def test_measuring_changes_nothing() -> None:
    """The policy's weights and observation normaliser are unchanged, and no gradient is set."""
    env = Pendulum()
    policy = GaussianPolicy(
        env.observation_space, env.action_space, (4,), normalize_observations=True
    )
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    measure(env, policy, 3, gamma=0.99, num=10)
    for name, value in policy.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_mixed_can_beat_both() -> None:
    """Chaos at H = 3, whose two gradients complement each other: below either, by a fifth."""
    env = Chaos(horizon=3)
    found = measure(env, linear_policy(env, 0.0, 0.0, 0.1), 3, gamma=1.0)
    better = min(found[name].variance for name in ("score_function", "pathwise"))
    assert found["mixed"].variance < better
    assert np.isfinite(found["mixed"].bias_z)


# The critic ---------------------------------------------------------------------------------------


def lqg_critic(slope_error: float = 0.0) -> SoftCritic:
    """The exact Q of LQG's first step, plus ``c a``."""

    def q_value(features: Tensor, action: Tensor) -> Tensor:
        state = LQGState(features.reshape(-1, 1), torch.zeros(features[..., 0].numel()).long())
        value = LQG(horizon=1).action_value(state, action.reshape(-1, 1), -0.4, 0.2, 0.3)
        return value.reshape(action.shape[:-1]) + slope_error * action[..., 0]

    return SoftCritic(q_value)


def measure_critic(slope_error: float, *, seed: int = 0) -> dict[str, Measurement]:
    names: tuple[StudyEstimator, ...] = ("score_function", "pathwise", "mixed", "critic")
    policy = linear_policy(LQG(), -0.4, 0.2, 0.3)
    rows = measure_horizon(
        DifferentiableVectorEnv(LQG(horizon=1), N),
        policy,
        1,
        trajectories=N,
        estimators=names,
        gamma=0.95,
        seed=seed,
        critic=lqg_critic(slope_error),
    )
    return {row.estimator: row for row in rows}


def test_the_critic_has_the_exact_variance_and_no_bias_with_the_true_q() -> None:
    """One step of LQG. The noise of the step is averaged out, so it varies less than pathwise."""
    exact = LQG(horizon=1).gradient_moments(-0.4, 0.2, 0.3, "critic")
    by_log_sigma = 0.3**2  # of a squared derivative
    variance = float(exact.variance.K + exact.variance.k + by_log_sigma * exact.variance.sigma)
    found = [measure_critic(0.0, seed=seed) for seed in range(20)]
    values = np.array([rows["critic"].variance for rows in found])
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - variance) < 4.5 * error
    assert error < 0.02 * variance
    for rows in found:
        assert rows["critic"].reference == "pathwise"
        assert rows["critic"].bias_z < 5 and rows["critic"].cosine_high > 0.99
        assert rows["critic"].variance < rows["pathwise"].variance
        assert rows["critic"].ratio < 1  # to the score function


def test_the_bias_of_a_wrong_critic_is_the_closed_form() -> None:
    """``Q + c a``: ``c`` times the mean state by the gain, ``c`` by the offset, 0 by sigma."""
    rows, c = measure_critic(0.8), 0.8
    exact = c**2 * (1.0 + 1.0)  # the start's mean is 1
    critic = rows["critic"]
    assert critic.bias_low < exact < critic.bias_high
    assert critic.bias == pytest.approx(exact, rel=0.1) and critic.bias_z > 5
    assert critic.cosine_low < critic.cosine < critic.cosine_high < 1


def test_a_critic_is_compared_with_the_score_function_where_pathwise_is_biased() -> None:
    """A jump of the reward, whose pathwise gradient is 0, and a critic that knows it."""

    def q_value(features: Tensor, action: Tensor) -> Tensor:
        return torch.sigmoid(20 * action[..., 0])

    names: tuple[StudyEstimator, ...] = ("score_function", "pathwise", "critic")
    policy = GaussianPolicy(Jump.observation_space, Jump.action_space, (), log_std_init=0.0)
    rows = measure_horizon(
        DifferentiableVectorEnv(Jump(), N),
        policy,
        1,
        trajectories=N,
        estimators=names,
        gamma=1.0,
        seed=0,
        critic=SoftCritic(q_value),
    )
    assert [row.reference for row in rows] == ["", "score_function", "score_function"]
    assert rows[1].bias_z > 5 and rows[2].bias_z < 5


def test_mixed_takes_the_critic_where_pathwise_is_not_measured() -> None:
    """In ordinary environments, of which fewer than trajectories are stepped."""
    env = SyncVectorEnv(
        [lambda: gymnasium.make("Pendulum-v1")] * 4, autoreset_mode=AutoresetMode.SAME_STEP
    )
    space, box = env.single_observation_space, env.single_action_space
    policy = GaussianPolicy(space, box, (4,))
    names: tuple[StudyEstimator, ...] = ("score_function", "mixed", "critic")
    critic = SoftCritic(lambda features, action: -action.square().sum(-1), 0.2)
    rows = measure_horizon(
        env,
        policy,
        3,
        trajectories=40,
        estimators=names,
        gamma=0.9,
        seed=0,
        critic=critic,
    )
    assert [row.estimator for row in rows] == list(names)
    assert all(math.isfinite(row.variance) for row in rows)
    assert rows[2].variance < rows[0].variance and rows[2].reference == "score_function"


def test_a_critic_must_be_given_to_be_measured() -> None:
    policy = linear_policy(LQG(), -0.4, 0.2, 0.3)
    with pytest.raises(RequestError, match="there is no critic"):
        measure(LQG(), policy, 2, gamma=0.9, num=20, estimators=("critic",))
