"""PPO the agent: what it measures, what it refuses, and that it learns what SB3's learns."""

import copy
import dataclasses
import math
from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor

from pgtoolkit.agents.ppo import Pace, Ppo, PpoConfig, ppo_loss, value_error
from pgtoolkit.diagnostics.outer_products import dense
from pgtoolkit.diagnostics.per_trajectory import SampleGradients
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError, SettingError
from pgtoolkit.estimators.proximal import standardized
from pgtoolkit.estimators.returns import gae
from pgtoolkit.rollouts.window import Window

SMALL: dict[str, Any] = {
    "num_envs": 4,
    "n_steps": 16,
    "batch_size": 16,
    "n_epochs": 2,
    "compile": "never",
}


def pendulum(**settings: Any) -> Ppo:
    env = DifferentiableVectorEnv(Pendulum(), 4)
    return Ppo(PpoConfig(**(SMALL | settings)), env, seed=1)


def value_and_target(agent: Ppo, window: Window) -> tuple[Tensor, Tensor]:
    return agent.value_and_target(window, agent.policy.normalizer(window.obs))


def test_advantages_are_gae_and_targets_their_sum_with_the_value() -> None:
    agent = pendulum()
    window = agent.collect()
    value, target = value_and_target(agent, window)
    with torch.no_grad():
        next_value = agent.value_function(window.next_obs)
    flags = window.terminated, window.truncated
    expected = gae(window.reward, value, next_value, *flags, gamma=0.99, lambda_=0.95)
    torch.testing.assert_close(target - value, expected)


def test_the_measured_gradient_is_that_of_the_first_step() -> None:
    """One minibatch of everything, at a ratio of 1, the entropy bonus included.

    The advantages of the loss are standardised; what is measured is in the unit of returns, so it
    is larger by the advantages' standard deviation.
    """
    agent = pendulum(diagnostics_interval=1, normalize_observations=True, ent_coef=0.3)
    window = agent.collect()
    value, target = value_and_target(agent, window)
    measured: list[SampleGradients] = []
    original = agent.monitor.measure

    def spy(policy: Any, surrogate: Any) -> SampleGradients:
        measured.append(original(policy, surrogate))
        return measured[-1]

    agent.monitor.measure = spy  # type: ignore[method-assign]
    metrics = agent.measure(window, agent.policy.normalizer(window.obs), target - value)
    assert metrics["gradient/score_function/variance"] > 0
    weight = standardized((target - value).flatten()).view_as(value)
    loss = agent.policy.log_derivative_loss(window.obs, window.pre_action, weight).mean()
    loss = loss - 0.3 * agent.policy(window.obs).entropy(window.noise).mean()
    expected = torch.autograd.grad(-loss, list(agent.policy.parameters()))
    names, scale = [name for name, _ in agent.policy.named_parameters()], (target - value).std()
    assert abs(float(scale) - 1) > 0.5
    for name, gradient in zip(names, expected, strict=True):
        torch.testing.assert_close(
            dense(measured[0][name]).mean(0), scale * gradient, rtol=1e-4, atol=1e-5
        )


def score_statistics(agent: Any, window: Window, advantage: Tensor) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = agent.measure(window, window.obs, advantage)
    return {tag: metrics[f"gradient/score_function/{tag}"] for tag in ("variance", "signal")}


def test_the_measured_gradient_is_in_the_unit_of_returns() -> None:
    """Advantages ten times as large have a hundred times the variance, and a mean changes none.

    So does the gradient of an agent that does not standardise: a2c's, for example.
    """
    agent, plain = pendulum(diagnostics_interval=1), pendulum(diagnostics_interval=1)
    plain.config = dataclasses.replace(plain.config, normalize_advantage=False)
    window = agent.collect()
    plain.collector.reward_normalizer = agent.collector.reward_normalizer  # one unit of rewards
    advantage = torch.randn(window.reward.shape, generator=torch.Generator().manual_seed(0))
    centred = advantage - advantage.mean()
    found = score_statistics(agent, window, 10 * advantage + 5)
    for tag, value in score_statistics(agent, window, advantage).items():
        assert float(found[tag]) == pytest.approx(100 * float(value), rel=1e-3)
    expected = score_statistics(plain, window, centred)
    for tag, value in score_statistics(agent, window, centred).items():
        assert float(value) == pytest.approx(float(expected[tag]), rel=1e-3)


def test_policy_and_value_function_learn_from_what_they_are_judged_by() -> None:
    """In a minibatch both see normalised observations: before the first step the ratio is 1."""
    agent = pendulum(normalize_observations=True, batch_size=64, n_epochs=1, vf_coef=1.0)
    agent.update(agent.collect())  # the normaliser has seen a window
    window = agent.collect()
    value, target = value_and_target(agent, agent.collector.normalized(window))
    metrics = agent.update(window)
    torch.testing.assert_close(metrics["train/value_loss"], (value - target).square().mean())
    torch.testing.assert_close(metrics["train/approx_kl"], torch.zeros(()), atol=1e-6, rtol=0)
    assert float(metrics["train/clip_fraction"]) == 0


def test_compiled_code_follows_the_normaliser() -> None:
    agents = [pendulum(normalize_observations=True) for _ in range(2)]
    agents[1].minibatches.compiled = True
    for _ in range(3):
        for agent in agents:
            agent.update(agent.collect())
    plain, compiled = agents
    assert plain.policy.normalizer.count == 3 * 64
    for a, b in zip(compiled.minibatches.parameters, plain.minibatches.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_without_normalised_advantages_they_are_measured_as_they_are() -> None:
    found = []
    for normalize in (False, True):
        agent = pendulum(normalize_advantage=normalize)
        window = agent.collect()
        advantage = torch.ones_like(window.reward)
        found.append(agent.measure(window, window.obs, advantage)["gradient/score_function/norm"])
    assert float(found[0]) > 0
    assert float(found[1]) == 0


def test_a_window_in_which_one_step_happened_is_an_update() -> None:
    """A single valid step has the mean advantage, so its policy loss is 0 and nothing is NaN."""
    agent = pendulum(ent_coef=0.01)
    window = agent.collect()
    valid = torch.zeros_like(window.valid)
    valid[0, 0] = True
    metrics = agent.update(dataclasses.replace(window, valid=valid))
    parameters = agent.minibatches.parameters
    assert all(bool(torch.isfinite(x).all()) for x in parameters)
    assert float(metrics["train/policy_gradient_loss"]) == 0


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode))
def test_it_trains_under_every_autoreset_mode(env_id: str, mode: Any) -> None:
    env = gymnasium.make_vec(
        env_id, 4, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}
    )
    agent = Ppo(PpoConfig(**SMALL, max_grad_norm=10.0), env, seed=0)
    for _ in range(4):
        window = agent.collect()
        metrics = agent.update(window)
    assert all(bool(torch.isfinite(v).all()) for v in metrics.values())
    assert float(metrics["train/approx_kl"]) >= 0


def test_a_resumed_agent_goes_on_exactly() -> None:
    first = pendulum()
    first.update(first.collect())
    second = pendulum()
    second.load_state_dict(first.state_dict())
    for agent in (first, second):
        agent.update(agent.collect())
    for a, b in zip(first.minibatches.parameters, second.minibatches.parameters, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"n_steps": 1}, "n_steps must be at least 2: one step of all"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"clip_range": 0.0}, "clip_range must be above 0"),
        ({"gae_lambda": 1.5}, "gae_lambda must be between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        PpoConfig(**(SMALL | settings))


def test_a_relative_entropy_weight_is_no_setting_of_ppo() -> None:
    """PPO has one entropy weight, ``ent_coef``."""
    with pytest.raises(TypeError, match="ent_coef_relative"):
        PpoConfig(**(SMALL | {"ent_coef_relative": 0.1}))


def test_correlated_noise_explores_and_goes_on_after_a_resume() -> None:
    """Within a window each noise has 0.9 of the one before; the next window goes on from there."""
    one, other = (pendulum(noise_correlation=0.9) for _ in range(2))
    noise = one.collect().noise
    pairs = torch.stack([noise[1:].flatten(), noise[:-1].flatten()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.6
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.collect().noise, other.collect().noise)


def test_correlated_noise_of_actions_that_are_not_continuous_is_refused() -> None:
    """The message is about the setting, and not about a critic."""
    with pytest.raises(SettingError, match=r"noise_correlation is of normal noise.*Discrete\(2\)"):
        Ppo(PpoConfig(**SMALL, noise_correlation=0.9), "CartPole-v1")


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_all_terms_by_hand() -> None:
    loss, terms = ppo_loss(
        torch.log(tensor(1.5, 1.0)),
        tensor(0.0, 0.0),
        tensor(1.0, 2.0),
        tensor(1.0, 3.0),
        tensor(0.0, 1.0),
        tensor(0.5, 1.5),
        clip_range=0.2,
        vf_coef=0.5,
        ent_coef=0.1,
    )
    assert terms["policy_loss"].item() == pytest.approx(-(1.2 + 2.0) / 2)
    assert terms["value_loss"].item() == pytest.approx((1 + 4) / 2)
    assert terms["entropy_loss"].item() == pytest.approx(-1.0)
    assert loss.item() == pytest.approx(-1.6 + 0.5 * 2.5 - 0.1 * 1.0)
    assert terms["approx_kl"].item() == pytest.approx((1.5 - 1 - math.log(1.5)) / 2)
    assert terms["clip_fraction"].item() == 0.5


@pytest.mark.parametrize("shift", [-1000.0, 1000.0])
def test_an_update_survives_ratios_that_overflow(shift: float) -> None:
    """Densities at collection that are far off: one large step may bring that about."""
    agent = pendulum()
    window = agent.collect()
    metrics = agent.update(dataclasses.replace(window, log_prob=window.log_prob - shift))
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert all(bool(parameter.isfinite().all()) for parameter in agent.policy.parameters())
    assert float(metrics["train/clip_fraction"]) == 1


def test_the_clip_of_the_value_by_hand() -> None:
    """Old value 0, clip 1, target 4: V = 3 counts as 1, and V = 0.5 and V = -3 as they are."""
    value, target, old = tensor(3.0, 0.5, -3.0), tensor(4.0, 4.0, 4.0), torch.zeros(3)
    torch.testing.assert_close(value_error(value, target, old, 1.0), tensor(9.0, 12.25, 49.0))
    torch.testing.assert_close(value_error(value, target, old, None), tensor(1.0, 12.25, 49.0))


def test_an_update_clips_the_value_around_the_one_before_it() -> None:
    """In the first step the value is the old one, so that no clip changes the loss."""
    agents = [pendulum(batch_size=64, n_epochs=1, vf_clip_range=c) for c in (None, 1e-3)]
    losses = [float(agent.update(agent.collect())["train/value_loss"]) for agent in agents]
    assert losses[0] == losses[1]
    agents = [pendulum(batch_size=64, n_epochs=5, vf_clip_range=c) for c in (None, 1e-3)]
    losses = [float(agent.update(agent.collect())["train/value_loss"]) for agent in agents]
    assert losses[0] < losses[1]


def test_the_epoch_that_goes_beyond_the_divergence_is_the_last() -> None:
    """And with a bound that no epoch reaches, the steps are those without one, to the bit."""
    settings = {"n_epochs": 8, "learning_rate": 0.01}
    bounded, far, free = (pendulum(**settings, target_kl=kl) for kl in (1e-4, 1e9, None))
    metrics = [agent.update(agent.collect()) for agent in (bounded, far, free)]
    assert 1 <= float(metrics[0]["train/epochs"]) < 8 == float(metrics[1]["train/epochs"])
    assert "train/epochs" not in metrics[2]
    for a, b in zip(far.policy.parameters(), free.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_learning_rate_follows_the_divergence() -> None:
    """Larger by half while updates are short, smaller while they are long, within two ends."""
    pace = Pace()
    for divergence, factor in ((0.4, 1.5), (0.5, 1.5), (2.0, 1.5), (2.1, 1.0)):
        pace.adapt(divergence)
        assert pace.factor == pytest.approx(factor)
    for _ in range(40):
        pace.adapt(0.0)
    assert pace.factor == 10
    for _ in range(40):
        pace.adapt(9.0)
    assert pace.factor == 0.01
    agent = pendulum(target_kl=1e9, adapt_learning_rate=True)
    rates = [float(agent.update(agent.collect())["train/learning_rate"]) for _ in range(3)]
    assert rates == pytest.approx([3e-4, 4.5e-4, 6.75e-4])


def test_an_adapted_rate_is_resumed() -> None:
    agent, other = (pendulum(target_kl=1e9, adapt_learning_rate=True) for _ in range(2))
    agent.update(agent.collect())
    other.update(other.collect())
    other.update(other.collect())
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    assert other.learning_rate == agent.learning_rate == pytest.approx(4.5e-4)


def test_spo_is_followed() -> None:
    """The first step is that of the clip, at a ratio of 1; later ones are not."""
    for epochs, same in ((1, True), (4, False)):
        agents = [pendulum(batch_size=64, n_epochs=epochs, surrogate=s) for s in ("clip", "spo")]
        for agent in agents:
            agent.update(agent.collect())
        first, second = (next(agent.policy.parameters()) for agent in agents)
        assert torch.allclose(first, second, rtol=0, atol=1e-7) == same
