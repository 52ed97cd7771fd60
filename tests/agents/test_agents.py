"""Every agent repeats itself bit for bit, resumes exactly, and measures its gradients correctly."""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from pgtoolkit.agent import HasCritic, HasReplay
from pgtoolkit.agents.a2c import A2c, A2cConfig
from pgtoolkit.agents.ahac import Ahac, AhacConfig
from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.npg import Npg, NpgConfig
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.reppo import Reppo, ReppoConfig
from pgtoolkit.agents.rpo import Rpo, RpoConfig
from pgtoolkit.agents.sac import Sac, SacConfig
from pgtoolkit.agents.sapo import Sapo, SapoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.agents.svg import Svg, SvgConfig
from pgtoolkit.agents.td3 import Td3, Td3Config
from pgtoolkit.agents.trpo import Trpo, TrpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.registry.resolve import find_env
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.vectorized.make import make_vector_env
from pgtoolkit.errors import NonFiniteError, RequestError
from pgtoolkit.estimators.catalogue import CATALOGUE
from pgtoolkit.estimators.mixing import cross_fitted_step_weights
from pgtoolkit.estimators.signals import Signals
from pgtoolkit.policies.discrete import CategoricalPolicy
from pgtoolkit.policies.policy import Policy
from pgtoolkit.scripts.cli.environments import make_env_factory
from pgtoolkit.scripts.cli.registry import AGENTS as REGISTERED
from pgtoolkit.scripts.cli.registry import load_agent
from pgtoolkit.scripts.reliability.mutations import at, places_of, replaced
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

SMALL: dict[str, Any] = {"num_envs": 6, "n_steps": 8, "hidden": (8,)}
PLAIN: dict[str, Any] = SMALL | {"compile": "never"}
REPLAYED: dict[str, Any] = PLAIN | {"batch_size": 16, "learning_starts": 50}
AGENTS: dict[str, Callable[..., Any]] = {
    "apg": lambda env, seed, **kwargs: Apg(ApgConfig(**SMALL, **kwargs), env, seed=seed),
    "shac": lambda env, seed, **kwargs: Shac(ShacConfig(**SMALL, **kwargs), env, seed=seed),
    "sapo": lambda env, seed, **kwargs: Sapo(SapoConfig(**SMALL, **kwargs), env, seed=seed),
    "ahac": lambda env, seed, **kwargs: Ahac(
        AhacConfig(**SMALL, horizon_max=8, **kwargs), env, seed=seed
    ),
    "rpo": lambda env, seed, **kwargs: Rpo(RpoConfig(**SMALL, **kwargs), env, seed=seed),
    "apg mixed": lambda env, seed, **kwargs: Apg(
        ApgConfig(**SMALL, estimator="mixed", **kwargs), env, seed=seed
    ),
    "shac mixed": lambda env, seed, **kwargs: Shac(
        ShacConfig(**SMALL, estimator="mixed", **kwargs), env, seed=seed
    ),
    "reinforce": lambda env, seed, **kwargs: Reinforce(
        ReinforceConfig(**SMALL, **kwargs), env, seed=seed
    ),
}
ACTOR_CRITICS: dict[str, Callable[..., Any]] = {
    "a2c": lambda env, seed, **kwargs: A2c(A2cConfig(**SMALL, **kwargs), env, seed=seed),
    "ppo": lambda env, seed, **kwargs: Ppo(PpoConfig(**(PLAIN | kwargs)), env, seed=seed),
    "npg": lambda env, seed, **kwargs: Npg(NpgConfig(**SMALL, **kwargs), env, seed=seed),
    "trpo": lambda env, seed, **kwargs: Trpo(TrpoConfig(**SMALL, **kwargs), env, seed=seed),
    "reppo": lambda env, seed, **kwargs: Reppo(
        ReppoConfig(**(PLAIN | {"batch_size": 16} | kwargs)), env, seed=seed
    ),
    "sac": lambda env, seed, **kwargs: Sac(SacConfig(**REPLAYED, **kwargs), env, seed=seed),
    "td3": lambda env, seed, **kwargs: Td3(Td3Config(**REPLAYED, **kwargs), env, seed=seed),
}
QUICK: dict[str, Any] = {
    "learning_starts": 1,
    "batch_size": 5,
    "replay_ratio": 0.05,
    "buffer_size": 200,
    "window_passes": 2,
    "model_hidden": (4,),
    "model_ensemble": 2,
    "model_first_fit_steps": 2,
    "model_fit_steps": 1,
}
VALUE_GRADIENTS: dict[str, Callable[..., Any]] = {
    f"svg {horizon}": lambda env, seed, horizon=horizon, **kwargs: Svg(
        SvgConfig(**SMALL, **QUICK, horizon=horizon, **kwargs), env, seed=seed
    )
    for horizon in ("0", "1", "infinity")
}
COMPILED = ("shac", "sapo", "ppo", "reppo")
BOTH = ("score_function", "pathwise")


def pendulum() -> DifferentiableVectorEnv:
    return DifferentiableVectorEnv(Pendulum(), SMALL["num_envs"])


def step(agent: Any, updates: int) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = {}
    for _ in range(updates):
        metrics = agent.update(agent.collect())
    return metrics


def parameters(agent: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in agent.policy.named_parameters()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", AGENTS | ACTOR_CRITICS | VALUE_GRADIENTS)
def test_an_agent_shares_nothing_with_one_that_has_loaded_its_state(name: str) -> None:
    """The other one learns in between; torch's optimisers keep the tensors that they are given."""
    make = (AGENTS | ACTOR_CRITICS | VALUE_GRADIENTS)[name]
    alone, agent, other = (make(pendulum(), 0) for _ in range(3))
    step(alone, 2)
    step(agent, 2)
    other.load_state_dict(agent.state_dict())
    step(other, 2)
    step(alone, 2)
    step(agent, 2)
    assert equal(parameters(agent), parameters(alone))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", AGENTS | ACTOR_CRITICS | VALUE_GRADIENTS)
def test_an_environment_may_compute_in_double_precision(name: str, normalize: bool) -> None:
    """Policies are float32; gradients are measured at each update."""
    env = DifferentiableVectorEnv(Pendulum(), SMALL["num_envs"], dtype=torch.float64)
    settings: dict[str, Any] = {"normalize_observations": normalize, "diagnostics_interval": 1}
    agent = (AGENTS | ACTOR_CRITICS | VALUE_GRADIENTS)[name](env, 0, **settings)
    before = parameters(agent)
    step(agent, 3)
    assert not equal(before, parameters(agent))


@pytest.mark.parametrize("name", AGENTS | VALUE_GRADIENTS)
def test_same_seed_same_bits_and_another_seed_others(name: str) -> None:
    """Two runs with one seed end with identical parameters; another seed does not."""
    runs = []
    for seed in (0, 0, 1):
        agent = (AGENTS | VALUE_GRADIENTS)[name](pendulum(), seed)
        step(agent, 7)
        runs.append(parameters(agent))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


@pytest.mark.parametrize("name", AGENTS | VALUE_GRADIENTS)
def test_no_global_random_state_is_used(name: str) -> None:
    """The global generator neither changes nor matters."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = (AGENTS | VALUE_GRADIENTS)[name](pendulum(), 0)
    step(first, 3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = (AGENTS | VALUE_GRADIENTS)[name](pendulum(), 0)
    step(second, 3)
    assert equal(parameters(first), parameters(second))


@pytest.mark.parametrize("name", AGENTS | VALUE_GRADIENTS)
def test_resuming_from_a_file_equals_never_stopping(name: str, tmp_path: Path) -> None:
    """The whole state of agent and environments is saved in a differentiable environment."""
    whole = (AGENTS | VALUE_GRADIENTS)[name](pendulum(), 3)
    step(whole, 4)
    save_checkpoint(tmp_path / "state.safetensors", whole.state_dict())
    step(whole, 5)
    resumed = (AGENTS | VALUE_GRADIENTS)[name](pendulum(), 99)
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.safetensors"))
    step(resumed, 5)
    assert equal(parameters(whole), parameters(resumed))
    policy, other = whole.policy.state_dict(), resumed.policy.state_dict()
    assert equal(policy, other)


EVERY_AGENT = AGENTS | ACTOR_CRITICS | VALUE_GRADIENTS


WITH_CRITIC: dict[str, Callable[..., Any]] = {
    **{name: EVERY_AGENT[name] for name in ("sac", "td3", *VALUE_GRADIENTS)},
    **{
        f"reppo {estimator}": lambda env, seed, estimator=estimator, **kwargs: Reppo(
            ReppoConfig(**(PLAIN | {"batch_size": 16, "estimator": estimator} | kwargs)),
            env,
            seed=seed,
        )
        for estimator in ("critic", "score_function", "mixed")
    },
}


@pytest.mark.parametrize("name", EVERY_AGENT | WITH_CRITIC)
def test_the_protocols_say_what_an_agent_has(name: str) -> None:
    agent = (EVERY_AGENT | WITH_CRITIC)[name](pendulum(), 0)
    replays = name in ("sac", "td3", *VALUE_GRADIENTS)
    assert isinstance(agent, HasReplay) == replays == hasattr(agent, "replay")
    assert isinstance(agent, HasCritic) == (replays or name.startswith("reppo"))


def followed(metrics: dict[str, Tensor]) -> list[str]:
    """The estimators that are said to be followed."""
    return [tag.split("/")[1] for tag in metrics if tag.endswith("/followed")]


@pytest.mark.parametrize("name", AGENTS | WITH_CRITIC)
def test_the_gradient_that_is_followed_has_its_variance_beside_it(name: str) -> None:
    """There is one in every update that is measured."""
    agent = (AGENTS | WITH_CRITIC)[name](pendulum(), 0, diagnostics_interval=2)
    for index in range(4):
        metrics = step(agent, 1)
        learned = name not in WITH_CRITIC or "train/critic_loss" in metrics
        names = followed(metrics)
        assert len(names) == (learned and index % 2 == 0)
        for one in names:
            assert f"gradient/{one}/variance" in metrics


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_the_critic_is_measured_beside_the_score_function(name: str) -> None:
    agent = WITH_CRITIC[name](pendulum(), 0, diagnostics_interval=1)
    metrics = step(agent, 3)
    for what in ("signal", "snr", "variance"):
        assert f"gradient/critic/{what}" in metrics
        assert f"gradient/score_function/{what}" in metrics
    for what in ("bias", "cosine", "variance_ratio"):
        assert f"gradient/critic_on_states/{what}" in metrics


def test_a_window_of_one_trajectory_is_said_to_be_followed_by_no_gradient() -> None:
    """Its gradient has no variance. The critic's is measured on states, and is not followed."""
    config = SvgConfig(
        **(SMALL | QUICK | {"num_envs": 1, "diagnostics_interval": 1}), horizon="infinity"
    )
    agent = Svg(config, DifferentiableVectorEnv(Pendulum(), 1), seed=0)
    metrics = step(agent, 2)
    assert "gradient/critic/variance" in metrics
    assert followed(metrics) == []


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_an_update_without_a_measurement_does_not_ask_for_the_critic(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads numbers of tensors, for which a GPU waits."""
    agent = WITH_CRITIC[name](pendulum(), 0, diagnostics_interval=3)
    kind, asked = type(agent), []
    view = kind.critic.fget

    def critic(self: Any) -> Any:
        asked.append(self)
        return view(self)

    monkeypatch.setattr(kind, "critic", property(critic))
    for index in range(6):
        before = len(asked)
        learned = "train/critic_loss" in step(agent, 1)
        assert (len(asked) > before) == (learned and index % 3 == 0)
    assert asked


@pytest.mark.parametrize("name", EVERY_AGENT)
def test_a_copy_goes_on_by_itself_with_the_same_bits(name: str) -> None:
    """Copied after an update and after a collect, whose graph the environments still hold."""
    agent = EVERY_AGENT[name](pendulum(), 0)
    step(agent, 2)
    between, whole = copy.deepcopy(agent), copy.deepcopy(agent)
    window = between.collect()
    after_collect = copy.deepcopy(between)
    between.update(window)
    step(between, 2)
    assert equal(parameters(whole), parameters(agent))
    step(whole, 3)
    step(agent, 3)
    assert equal(parameters(whole), parameters(agent))
    assert equal(parameters(between), parameters(agent))
    step(after_collect, 2)
    assert not equal(parameters(after_collect), parameters(agent))


@pytest.mark.parametrize("name", COMPILED)
def test_a_copy_of_a_compiled_agent_goes_on_with_the_same_bits(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The copy has a policy of its own, and its compiled steps follow that one."""
    agent = EVERY_AGENT[name](pendulum(), 0, compile="always")
    step(agent, 2)
    copied = copy.deepcopy(agent)
    step(agent, 3)
    step(copied, 3)
    assert equal(parameters(agent), parameters(copied))
    assert "not compiled" not in caplog.text


@pytest.mark.parametrize("name", AGENTS)
def test_measuring_does_not_change_what_is_learned(name: str) -> None:
    """The measured gradients' mean is the gradient of the update, up to rounding."""
    gradients = []
    for interval in (0, 1):
        agent = AGENTS[name](pendulum(), 0, diagnostics_interval=interval)
        step(agent, 1)
        gradients.append([p.grad.clone() for p in agent.policy.parameters()])
    for plain, measured in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, measured, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", AGENTS)
def test_both_estimators_are_measured_on_the_same_trajectories(name: str) -> None:
    """On a differentiable environment every agent reports the whole gradient group."""
    metrics = step(AGENTS[name](pendulum(), 0, diagnostics_interval=1), 2)
    statistics = ("variance", "signal", "snr", "norm")
    wanted = {f"gradient/{estimator}/{s}" for estimator in BOTH for s in statistics}
    pair = ("variance_ratio", "log10_variance_ratio", "cosine", "bias", "bias_z", "overhead")
    wanted |= {f"gradient/{s}" for s in pair}
    assert wanted <= metrics.keys()
    assert all(torch.isfinite(metrics[tag]).all() for tag in metrics)
    for estimator in BOTH:
        middle = metrics[f"gradient/{estimator}/variance"]
        parts = [v for k, v in metrics.items() if k.startswith(f"gradient_parameters/{estimator}/")]
        torch.testing.assert_close(torch.stack(parts).sum(), middle, rtol=1e-6, atol=0)
        assert metrics[f"gradient/by_step/{estimator}"].shape == (SMALL["n_steps"],)


MIXED = ("apg mixed", "shac mixed")


@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_agent_measures_all_three(name: str) -> None:
    """The mix on the tensor that trains, the two beside it, the weights, and the curves by step."""
    metrics = step(AGENTS[name](pendulum(), 0, diagnostics_interval=2), 1)
    statistics = ("variance", "signal", "norm", "snr")
    assert {f"gradient/mixed/{s}" for s in statistics} <= metrics.keys()
    for estimator in ("mixed", *BOTH):
        assert metrics[f"gradient/by_step/{estimator}"].shape == (SMALL["n_steps"],)
    assert -1 <= metrics["gradient/mix/weight"] <= 2
    assert 0 <= metrics["gradient/mix/guarded"] <= 1


@pytest.mark.parametrize("name", MIXED)
def test_a_mixed_update_that_is_not_measured_still_tells_its_weights(name: str) -> None:
    """The second of two, at an interval of two; no variances."""
    metrics = step(AGENTS[name](pendulum(), 0, diagnostics_interval=2), 2)
    assert {"gradient/mix/weight", "gradient/mix/guarded"} <= metrics.keys()
    assert not any("mixed" in tag for tag in metrics)


def gradient_of_first_update(agent: Any) -> list[Tensor]:
    step(agent, 1)
    return [p.grad.clone() for p in agent.policy.parameters()]


@pytest.mark.parametrize("name", ["apg", "shac"])
def test_a_weight_of_one_is_pathwise_and_a_weight_of_zero_is_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mixed gradient at weight 1 is the pathwise agent's; halfway is the mean of both ends."""
    found = {}
    for weight in (0.0, 0.5, 1.0):
        monkeypatch.setattr(
            "pgtoolkit.estimators.signals.cross_fitted_step_weights",
            lambda score, pathwise, weight=weight: torch.full_like(score[..., 0], weight),
        )
        found[weight] = gradient_of_first_update(
            AGENTS[f"{name} mixed"](pendulum(), 0, max_grad_norm=1e9, diagnostics_interval=0)
        )
    pathwise = gradient_of_first_update(
        AGENTS[name](pendulum(), 0, max_grad_norm=1e9, diagnostics_interval=0)
    )
    for expected, one, half, zero in zip(pathwise, *(found[w] for w in (1, 0.5, 0)), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(half, (one + zero) / 2, rtol=1e-4, atol=1e-3)
    assert any(not torch.allclose(a, b, rtol=0.1) for a, b in zip(found[0], pathwise, strict=True))


@pytest.mark.parametrize(("weight", "same"), [(0.0, "score_function"), (1.0, "pathwise")])
def test_what_is_measured_of_the_mix_is_the_mix(
    weight: float, same: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a weight of 0 or 1 it has the variance of one of the two, whole and by step."""
    monkeypatch.setattr(
        "pgtoolkit.estimators.signals.cross_fitted_step_weights",
        lambda score, pathwise: torch.full_like(score[..., 0], weight),
    )
    metrics = step(AGENTS["shac mixed"](pendulum(), 0, diagnostics_interval=1), 1)
    assert float(metrics["gradient/mix/weight"]) == weight
    assert float(metrics["gradient/mix/guarded"]) == (weight == 0)
    for tag in ("gradient/{}/variance", "gradient/{}/signal", "gradient/by_step/{}"):
        expected = metrics[tag.format(same)]
        torch.testing.assert_close(metrics[tag.format("mixed")], expected, rtol=1e-3, atol=1e-6)


def test_where_pathwise_is_blind_a_mixed_agent_climbs_by_the_score_function() -> None:
    """Reward 1[s' > 0] + 1[a > 0]: guarded at every step, and not on s' - a^2."""
    config: dict[str, Any] = {
        "num_envs": 1024,
        "n_steps": 4,
        "hidden": (8,),
        "ent_coef_relative": 0.0,
    }

    def guarded(env: DifferentiableEnv[Tensor]) -> float:
        agent = Apg(ApgConfig(**config, estimator="mixed"), DifferentiableVectorEnv(env, 1024))
        return float(step(agent, 1)["gradient/mix/guarded"])

    assert guarded(Jump(1.0)) == 1.0
    assert guarded(Jump(0.0)) == 0.0


class Jump(DifferentiableEnv[Tensor]):
    """A point that is moved by the action, and paid for being right of 0, or smoothly."""

    observation_space = Box(-1e9, 1e9, (1,))
    action_space = Box(-1.0, 1.0, (1,))
    max_episode_steps = 100

    def __init__(self, jump: float) -> None:
        self.jump = jump

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return 0.5 * state + action

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        steps = (next_state[:, 0] > 0).to(state) + (action[:, 0] > 0).to(state)
        smooth = next_state[:, 0] - action[:, 0].square()
        return self.jump * steps + (1 - self.jump) * smooth

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros(state.shape[0], dtype=torch.bool)


class Wave(DifferentiableEnv[Tensor]):
    """An unstable line, s' = 1.2 s + a, that pays cos s'; the policy sees nothing of it."""

    observation_space = Box(-1.0, 1.0, (1,))
    action_space = Box(-float("inf"), float("inf"), (1,))
    max_episode_steps = 100

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 1)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return 1.2 * state + action

    def observation(self, state: Tensor) -> Tensor:
        return torch.ones_like(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.cos(next_state[:, 0])

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros(state.shape[0], dtype=torch.bool)


@pytest.mark.parametrize(("single_steps", "low", "high"), [(False, 0.65, 0.9), (True, 1.05, 1.4)])
def test_weights_of_running_sums_see_that_pathwise_errors_add_up(
    single_steps: bool, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mix varies less than the better of the two; with weights of single steps, more.

    16 steps, 2048 environments: 0.765 and 1.19 times, with a standard deviation over seeds of 0.015
    and 0.03. The bounds are more than 4.5 of them away.
    """

    def of_steps(sums: Tensor) -> Tensor:
        return torch.diff(sums, dim=0, prepend=torch.zeros_like(sums[:1]))

    if single_steps:
        monkeypatch.setattr(
            "pgtoolkit.estimators.signals.cross_fitted_step_weights",
            lambda one, two: cross_fitted_step_weights(of_steps(one), of_steps(two)),
        )
    config = ApgConfig(
        num_envs=2048,
        n_steps=16,
        hidden=(),
        ent_coef_relative=0.0,
        log_std_init=-2.3,
        normalize_observations=False,
        estimator="mixed",
    )
    metrics = step(Apg(config, DifferentiableVectorEnv(Wave(), 2048)), 1)
    mixed, *others = (float(metrics[f"gradient/{e}/variance"]) for e in ("mixed", *BOTH))
    assert low < mixed / min(others) < high


@pytest.mark.parametrize("config", [ApgConfig, ShacConfig])
@pytest.mark.parametrize("change", [{"num_envs": 5}, {"distribution": "full_gaussian"}])
def test_what_cannot_be_mixed_is_refused(config: Any, change: dict[str, Any]) -> None:
    """Mixing needs three trajectories in each of two folds, and the distribution ``gaussian``."""
    (name,) = change
    with pytest.raises(RequestError, match=f"^{name} must be"):
        config(estimator="mixed", **change)
    config(**change)


def test_a_policy_without_a_mean_is_refused_by_the_ascent_and_has_one_curve_by_step() -> None:
    """However it was made; the message names the way out."""
    agent = AGENTS["shac mixed"](pendulum(), 0)
    window = agent.collect()
    discrete = CategoricalPolicy(Pendulum().observation_space, Discrete(3))

    def curves(policy: Policy) -> set[str]:
        plain = window.detach()
        signals = Signals(policy, plain, matched_weight=lambda _: torch.zeros_like(plain.reward))
        signals.action_gradient = torch.zeros_like(plain.noise)
        rows = {name: CATALOGUE[name].by_step(signals) for name in BOTH}
        return {name for name, row in rows.items() if row is not None}

    assert curves(agent.policy) == set(BOTH)
    assert curves(discrete) == {"pathwise"}
    agent.policy = discrete
    with pytest.raises(RequestError, match="estimator='pathwise'"):
        agent.update(window)


@pytest.mark.parametrize("name", ["apg", "shac", "sapo", "ahac", "rpo"])
def test_a_pathwise_agent_refuses_an_environment_without_gradient(name: str) -> None:
    """The error names an agent that needs no gradient, ``reinforce``."""
    env = make_vector_env(find_env("Pendulum-v1"), SMALL["num_envs"])
    with pytest.raises(RequestError, match="reinforce"):
        AGENTS[name](env, 0)


@pytest.mark.parametrize("name", ["apg", "shac", "sapo", "ahac", "rpo"])
def test_a_second_update_with_a_window_is_refused_and_changes_no_parameter(name: str) -> None:
    agent = AGENTS[name](pendulum(), 0)
    window = agent.collect()
    agent.update(window)
    before = parameters(agent)
    with pytest.raises(RequestError, match="an update frees it: collect a new window"):
        agent.update(window)
    assert equal(parameters(agent), before)
    agent.update(agent.collect())


@pytest.mark.parametrize("name", AGENTS)
def test_the_normaliser_is_frozen_until_the_update_is_over(name: str) -> None:
    """Collecting changes nothing; the window enters the statistics once, afterwards."""
    agent = AGENTS[name](pendulum(), 0)
    window = agent.collect()
    normalizer = agent.policy.normalizer
    assert normalizer.count == 0
    agent.update(window)
    assert normalizer.count == SMALL["num_envs"] * SMALL["n_steps"]
    torch.testing.assert_close(normalizer.mean, window.obs.detach().double().mean((0, 1)))


def test_the_actor_leaves_no_gradient_in_the_value_function() -> None:
    """Gradients pass through the target's input, never into its weights."""
    agent = AGENTS["shac"](pendulum(), 0)
    window = agent.collect()
    next_value = agent.value.lagged(agent.policy.normalizer(window.next_obs))
    assert next_value.requires_grad
    next_value.sum().backward()
    assert all(p.grad is None for p in agent.value.lagged.copy.parameters())
    assert all(p.grad is None for p in agent.value.module.parameters())


class Blowup(DifferentiableEnv[Tensor]):
    """Fails in environment 4 of its third step, in the way it is told to."""

    observation_space = Box(-1e9, 1e9, (1,))
    action_space = Box(-1.0, 1.0, (1,))
    max_episode_steps = 100

    def __init__(self, failure: str) -> None:
        self.failure = failure

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num_envs, 2)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        return torch.stack([0.5 * state[:, 0] + action[:, 0], state[:, 1] + 1], -1)

    def bad(self, state: Tensor) -> Tensor:
        return (torch.arange(state.shape[0]) == 4) & (state[:, 1] == 3)

    def observation(self, state: Tensor) -> Tensor:
        if self.failure == "observation":
            return torch.where(self.bad(state), torch.nan, state[:, 0]).unsqueeze(-1)
        return state[:, :1]

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        reward = -next_state[:, 0].square()
        if self.failure == "reward":
            return torch.where(self.bad(next_state), torch.inf, reward)
        if self.failure == "gradient":
            zero = torch.where(self.bad(next_state), next_state[:, 0] * 0, 1.0)
            return reward - torch.sqrt(zero)
        return reward

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros(state.shape[0], dtype=torch.bool)


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("failure", ["observation", "reward", "gradient"])
def test_a_bad_number_is_named_where_it_began_and_changes_nothing(
    name: str, failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensor, step and environment; the parameters stay as they were."""
    if name == "reinforce" and failure == "gradient":
        pytest.skip("the score function does not differentiate the environment")
    monkeypatch.setattr(
        "pgtoolkit.envs.collector.stagger_ages", lambda env, rollout_state, seed: rollout_state
    )
    agent = AGENTS[name](DifferentiableVectorEnv(Blowup(failure), SMALL["num_envs"]), 0)
    before = parameters(agent)
    with pytest.raises(NonFiniteError) as caught:
        step(agent, 1)
    assert failure in caught.value.tensor
    assert (caught.value.step, caught.value.env_index) == (2, 4)
    assert equal(before, parameters(agent))


@pytest.mark.parametrize("rollout", ["windows", "episodes"])
@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "value"])
@pytest.mark.parametrize("advantage", ["return", "reward_to_go", "gae"])
def test_reinforce_learns_with_every_weight(rollout: str, baseline: str, advantage: str) -> None:
    """Every combination that makes sense updates the policy with finite numbers."""
    config: dict[str, Any] = {"rollout": rollout, "baseline": baseline, "advantage": advantage}
    if advantage == "gae" and baseline != "value":
        with pytest.raises(RequestError, match="advantage"):
            ReinforceConfig(**SMALL, **config)
        return
    env = make_vector_env(find_env("CartPole-v1"), SMALL["num_envs"])
    agent = Reinforce(ReinforceConfig(**SMALL, **config), env)
    before = parameters(agent)
    metrics = step(agent, 2)
    assert not equal(before, parameters(agent))
    assert all(torch.isfinite(value).all() for value in metrics.values())


def test_whole_episodes_are_whole() -> None:
    """Each environment's column holds one episode, from its first step to its end."""
    env = make_vector_env(find_env("CartPole-v1"), SMALL["num_envs"])
    window = Reinforce(ReinforceConfig(**SMALL, rollout="episodes"), env).collect()
    assert window.episode_start is not None and bool(window.episode_start[0].all())
    assert bool(((window.done & window.valid).sum(0) == 1).all())
    ends = (window.done & window.valid).int().argmax(0)
    assert torch.equal(window.valid.sum(0), ends + 1)


def test_discrete_actions_are_measured_by_the_score_function_alone() -> None:
    """A categorical policy on CartPole reports its variance, and no pathwise tag."""
    env = make_vector_env(find_env("CartPole-v1"), SMALL["num_envs"])
    assert isinstance(env.single_action_space, Discrete)
    agent = Reinforce(ReinforceConfig(**SMALL, diagnostics_interval=1), env)
    metrics = step(agent, 1)
    assert metrics["gradient/score_function/variance"] > 0
    assert not any("pathwise" in tag for tag in metrics)


def test_the_number_of_environments_must_agree() -> None:
    """An agent set to 6 environments refuses 5."""
    with pytest.raises(RequestError, match="num_envs"):
        AGENTS["shac"](DifferentiableVectorEnv(Pendulum(), 5), 0)


def test_two_environments_train_without_measurements() -> None:
    """Statistics need three trajectories; with fewer the agent trains and measures nothing."""
    config = ShacConfig(num_envs=2, n_steps=4, hidden=(8,), diagnostics_interval=1)
    agent = Shac(config, DifferentiableVectorEnv(Pendulum(), 2))
    assert not any("variance" in tag and "explained" not in tag for tag in step(agent, 1))


@pytest.mark.parametrize(
    "change",
    [{"gamma": 1.5}, {"num_envs": 0}, {"learning_rate": 0.0}, {"hidden": (0,)}, {"n_steps": -1}],
)
def test_a_setting_out_of_range_is_named(change: dict[str, Any]) -> None:
    """The error names the flag of the setting."""
    (name,) = change
    with pytest.raises(RequestError, match=f"^{name} must be"):
        ShacConfig(**change)


@final
class Cut(DifferentiableEnv[Tensor]):
    """A point that is pushed, by dynamics that torch cannot follow: detached, or said to be so."""

    observation_space = Box(-10.0, 10.0, (1,))
    action_space = Box(-1.0, 1.0, (1,))
    max_episode_steps = 20

    def __init__(self, slope: str) -> None:
        self.slope = slope
        if slope == "declared":
            self.gradient = GradientInfo(action="none")

    def initial(self, num_envs: int, generator: torch.Generator) -> Tensor:
        return torch.rand(num_envs, 1, generator=generator)

    def transition(self, state: Tensor, action: Tensor, noise: Tensor | None) -> Tensor:
        if self.slope == "not finite":
            zero = action - action.detach()
            return state + 0.1 * action.detach() + zero.abs().sqrt()
        return state + 0.1 * action.detach()

    def observation(self, state: Tensor) -> Tensor:
        return state

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -next_state[:, 0].square()

    def terminal(self, state: Tensor) -> Tensor:
        return torch.zeros_like(state[:, 0], dtype=torch.bool)


@pytest.mark.parametrize("slope", ["detached", "declared", "not finite"])
def test_reinforce_trains_where_pathwise_cannot_be_measured(slope: str) -> None:
    """A metric says that pathwise is missing, unless the environment declares no gradient."""
    env = DifferentiableVectorEnv(Cut(slope), SMALL["num_envs"])
    metrics = step(Reinforce(ReinforceConfig(**SMALL), env, seed=0), 1)
    assert "gradient/score_function/variance" in metrics
    assert "gradient/pathwise/variance" not in metrics
    assert ("gradient/pathwise/missing" in metrics) == (slope != "declared")


@pytest.mark.parametrize("name", ["apg", "shac", "sapo", "ahac", "rpo", "apg mixed", "shac mixed"])
def test_checkpointing_changes_nothing_but_memory(name: str) -> None:
    """Windows of 8 steps in segments of 3, against the whole graph."""
    plain, segments = (AGENTS[name](pendulum(), 3, checkpoint_every=k) for k in (0, 3))
    step(plain, 3)
    step(segments, 3)
    expected, found = parameters(plain), parameters(segments)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)


def test_a_negative_segment_is_refused() -> None:
    with pytest.raises(RequestError, match="checkpoint_every must be at least 0"):
        ShacConfig(checkpoint_every=-1)


class Centred(nn.Module):
    """Takes the mean over trajectories away, as a BatchNorm does."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(-2, keepdim=True)


@pytest.mark.parametrize(
    "name", ["reinforce", "shac", "sapo", "a2c", "ppo", "npg", "trpo", "reppo"]
)
def test_an_agent_whose_policy_mixes_trajectories_trains_unmeasured(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; no statistics of a gradient of each trajectory, which does not exist."""
    agent = (AGENTS | ACTOR_CRITICS)[name](pendulum(), 0, diagnostics_interval=1)
    agent.policy.torso.append(Centred())
    before = parameters(agent)
    metrics = step(agent, 3)
    assert not equal(before, parameters(agent))
    assert not any(tag.startswith("gradient/") and "variance" in tag for tag in metrics)
    assert sum("not measured" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("name", ["reinforce", "a2c", "ppo", "npg", "trpo"])
def test_a_constant_return_has_no_explained_variance(name: str) -> None:
    """The reward of CartPole is 1, and without later rewards every return is 1."""
    for gamma in (0.0, 0.9):
        env = make_vector_env(find_env("CartPole-v1"), SMALL["num_envs"])
        metrics = step((AGENTS | ACTOR_CRITICS)[name](env, 0, gamma=gamma), 2)
        assert ("train/explained_variance" in metrics) == (gamma > 0)
        assert "train/value_loss" in metrics


SAVED: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    **{name: (make, pendulum) for name, make in AGENTS.items()},
    **{name: (make, pendulum) for name, make in ACTOR_CRITICS.items()},
    **{name: (make, pendulum) for name, make in VALUE_GRADIENTS.items()},
    "reinforce in an ordinary environment": (AGENTS["reinforce"], lambda: ordinary("CartPole-v1")),
    "reppo by both estimators": (
        lambda env, seed: Reppo(
            ReppoConfig(**PLAIN, batch_size=16, estimator="mixed", num_critics=2), env, seed=seed
        ),
        lambda: ordinary("Pendulum-v1"),
    ),
    "ppo with normalised rewards": (
        lambda env, seed: ACTOR_CRITICS["ppo"](env, seed, normalize_rewards=True),
        lambda: ordinary("Pendulum-v1"),
    ),
    "shac by finite differences": (AGENTS["shac"], lambda: adapted("finite-difference")),
    "shac by MuJoCo": (AGENTS["shac"], lambda: adapted("mujoco", "InvertedPendulum-v5")),
    "apg with a learned model": (AGENTS["apg"], lambda: adapted("model", **SMALL_MODEL)),
}
"""Agents with their environments: together they have every kind of saved state."""
SMALL_MODEL: dict[str, Any] = {
    "hidden": [4],
    "ensemble_size": 2,
    "capacity": 200,
    "initial_steps": 20,
}
SMALL_MODEL |= {"initial_fit_steps": 2, "fit_steps": 1, "batch_size": 8}


def ordinary(name: str) -> Any:
    return make_vector_env(find_env(name), SMALL["num_envs"])


def adapted(method: Any, name: str = "Pendulum-v1", **kwargs: Any) -> Any:
    device = torch.device("cpu")
    factory = make_env_factory(
        name,
        {},
        differentiate=method,
        adapter_kwargs=kwargs,
        gym_wrappers={},
        wrappers={},
        needed=True,
        device=device,
    )
    return factory.make(SMALL["num_envs"])


def damaged_leaves(value: Any) -> dict[str, Any]:
    """Other values of one leaf, none of which fits where the leaf was."""
    found: dict[str, Any]
    if isinstance(value, Tensor):
        other = torch.float64 if value.dtype == torch.float32 else torch.float32
        found = {"an axis more": value[None], "another dtype": value.to(other)}
        found |= {"no tensor": value.tolist()}
        if value.numel():
            found["a longer one"] = torch.cat([value.reshape(-1)] * 3)
        if value.is_floating_point() and value.numel():
            found["NaN"] = torch.full_like(value, torch.nan)
        return found
    found = {"a list": [value], "a dictionary": {"a": value}, "a tensor": torch.zeros(2)}
    if isinstance(value, bool):
        return found | {"a number": 1, "None": None}
    if isinstance(value, int):
        huge, negative = 10**30, -(10**9)
        return found | {"a flag": True, "a text": "16", "huge": huge, "negative": negative}
    if isinstance(value, float):
        return found | {"NaN": float("nan"), "a text": "nan", "a flag": True, "infinite": -math.inf}
    return found


def without(value: Any, place: tuple[Any, ...]) -> Any:
    """A copy of a nested state without one entry."""
    parent = at(value, place[:-1])
    if isinstance(parent, dict):
        return replaced(value, place[:-1], {k: v for k, v in parent.items() if k != place[-1]})
    rest = [item for index, item in enumerate(parent) if index != place[-1]]
    return replaced(value, place[:-1], type(parent)(rest))


@pytest.mark.parametrize("name", SAVED)
def test_a_state_that_does_not_fit_is_refused_with_its_path(name: str, tmp_path: Path) -> None:
    """Every leaf of the saved state: another kind, dtype or shape, NaN, or missing.

    Nothing crashes, and nothing but ``StateError`` is raised: it names the leaf, or where the leaf
    is one of a list that must agree with another entry, what is around it.
    """
    make, env = SAVED[name]
    agent = make(env(), 0)
    step(agent, 2)
    save_checkpoint(tmp_path / "state.safetensors", agent.state_dict())
    state = load_checkpoint(tmp_path / "state.safetensors")
    target = make(env(), 1)
    target.load_state_dict(state)
    leaves = [place for place in places_of(state) if not isinstance(at(state, place), dict | list)]
    leaves = [place for place in leaves if not isinstance(at(state, place), tuple)]
    assert len(leaves) > 10
    for place in leaves:
        cases = {k: replaced(state, place, v) for k, v in damaged_leaves(at(state, place)).items()}
        if place[-1] == "actions":  # an episode of another length is another possible state
            cases.pop("a longer one")
        if not is_optional(place):
            cases["missing"] = without(state, place)
        for what, case in cases.items():
            if is_of_an_ordinary_environment(place):
                load_or_begin_anew(target, case)
                continue
            with pytest.raises(RequestError) as caught:
                target.load_state_dict(case)
                pytest.fail(f"{what} instead of {place} was accepted")
            assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
            path = "/".join(map(str, place))
            named = isinstance(at(state, place[:-1]), dict) and "collector/env/state" not in path
            assert (path if named else "/".join(map(str, place[:2]))) in str(caught.value), what


def is_of_an_ordinary_environment(place: tuple[Any, ...]) -> bool:
    """Whether the entry is compared by the environment itself, which knows what it saved."""
    return place[:3] == ("collector", "env", "environments") and place[4] not in ("kind", "vector")


def load_or_begin_anew(agent: Any, state: Any) -> None:
    """Loads a state of damaged environments: it is refused, or new episodes begin; no crash."""
    with contextlib.suppress(RequestError):
        agent.load_state_dict(state)


def is_optional(place: tuple[Any, ...]) -> bool:
    """Whether a state without this entry is another possible state: one of a growing list."""
    return any(key in ("segments", "irrelevant", "texts") for key in place)


@pytest.mark.parametrize("name", REGISTERED)
def test_settings_of_another_agent_are_refused_by_their_names(name: str) -> None:
    """Those of a class that derives from the agent's own are taken."""
    agent, kind = load_agent(name)
    other = A2cConfig if name != "a2c" else PpoConfig
    words = f"{agent.__name__} takes its settings, {kind.__name__}"
    for wrong in (other(), kind, name):
        with pytest.raises(RequestError, match=words):
            agent(wrong, pendulum())
    derived = dataclasses.make_dataclass("Derived", [], bases=(kind,), frozen=True, kw_only=True)
    assert agent(derived(num_envs=SMALL["num_envs"]), pendulum()).config.num_envs == 6
