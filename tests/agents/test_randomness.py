"""The streams of a run are independent, so an agent's gradients are right from the first window."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.diagnostics.per_trajectory import per_trajectory_gradients
from pgtoolkit.diagnostics.statistics import flatten_gradients
from pgtoolkit.envs.analytic.lqg.env import LQG
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.estimators.surrogates import score_function_surrogate
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.rollouts.evaluation import evaluate

NUM_ENVS = 4096
LINEAR: dict[str, Any] = {"hidden": (), "normalize_observations": False, "log_std_init": -0.5}


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize(
    ("agent_class", "config_class"),
    [(Apg, ApgConfig), (Shac, ShacConfig), (Reinforce, ReinforceConfig)],
)
def test_action_noise_knows_nothing_of_the_environment(agent_class: Any, config_class: Any) -> None:
    """Starts and process noise are uncorrelated with action noise: |r| < 5 / sqrt(N)."""
    config = config_class(num_envs=NUM_ENVS, n_steps=8, **LINEAR)
    agent = agent_class(config, DifferentiableVectorEnv(LQG(horizon=50), NUM_ENVS), seed=0)
    window = agent.collect().detach()
    # s' = 0.9 s + 0.5 u + w: what is left of the step is the process noise.
    process = (window.next_obs - 0.9 * window.obs - 0.5 * window.action)[..., 0]
    bound = 5 / NUM_ENVS**0.5
    for eps in window.noise[..., 0]:
        assert abs(correlation(window.obs[0], eps)) < bound
        assert all(abs(correlation(w, eps)) < bound for w in process)


def test_stochastic_evaluation_meets_the_exact_return() -> None:
    """The undiscounted return of a linear policy on LQG, within 4.5 standard errors."""
    env = LQG(gamma=1.0)
    policy = GaussianPolicy(env.observation_space, env.action_space, (), log_std_init=-0.5)
    with torch.no_grad():
        dict(policy.named_parameters())["head.output.weight"].fill_(-0.4)
    result = evaluate(
        DifferentiableVectorEnv(env, 20_000),
        policy,
        episodes=20_000,
        seed=1000,
        device=torch.device("cpu"),
        stochastic=True,
    )
    exact = env.expected_return(-0.4, 0.0, float(torch.tensor(-0.5).exp()))
    assert abs(result.mean_return - exact) < 4.5 * result.std_return / 20_000**0.5


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "value"])
@pytest.mark.parametrize("advantage", ["return", "reward_to_go", "gae"])
def test_every_weight_of_reinforce_estimates_the_discounted_gradient(
    advantage: Any, baseline: Any
) -> None:
    """On whole episodes of LQG, within 4.5 standard errors of the exact gradient.

    The reward-to-go and GAE (with lambda 1, so without bias) need ``discounted_score``; the return
    of the segment has the discount already.
    """
    if advantage == "gae" and baseline != "value":
        pytest.skip("GAE needs a value function")
    num, system = 40_000, LQG(gamma=0.6, horizon=4)
    config = ReinforceConfig(
        num_envs=num,
        rollout="episodes",
        gamma=0.6,
        gae_lambda=1.0,
        advantage=advantage,
        baseline=baseline,
        discounted_score=advantage != "return",
        **LINEAR,
    )
    agent = Reinforce(config, DifferentiableVectorEnv(system, num), seed=1)
    window, policy = agent.collect(), agent.policy
    value, next_value = agent.value.lagged(window.obs), agent.value.lagged(window.next_obs)
    target = agent.returns(window, next_value, 1.0)
    weight = agent.weight(window, value.detach(), next_value.detach(), target.detach())
    found = flatten_gradients(
        per_trajectory_gradients(policy, lambda: score_function_surrogate(policy, window, weight))
    )
    parameters = {name: p.detach().double() for name, p in policy.named_parameters()}
    gain, offset = parameters["head.output.weight"], parameters["head.output.bias"]
    sigma = torch.tensor(-0.5, dtype=torch.float64).exp()
    exact = system.return_gradient(gain, offset, sigma)
    by_name = {"weight": exact.K, "bias": exact.k, "log_std": exact.sigma * sigma}
    expected = torch.cat(
        [by_name[name.split(".")[-1]].flatten() for name, _ in policy.named_parameters()]
    )
    error = found.std(0) / num**0.5
    assert bool(((found.mean(0) - expected).abs() < 4.5 * error).all())


def test_a_discount_is_not_applied_twice() -> None:
    """The advantage ``return`` is discounted already, so a discounted score is refused."""
    with pytest.raises(ValueError, match="discounted_score"):
        ReinforceConfig(advantage="return", discounted_score=True)
