"""With normalised rewards an agent learns the same, whatever the unit of the rewards is."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import gymnasium
import pytest
import torch
from gymnasium.wrappers import TransformReward
from torch import Tensor

from pgtoolkit.agents.a2c import A2c, A2cConfig
from pgtoolkit.agents.ahac import Ahac, AhacConfig
from pgtoolkit.agents.apg import Apg, ApgConfig
from pgtoolkit.agents.npg import Npg, NpgConfig
from pgtoolkit.agents.ppo import Ppo, PpoConfig
from pgtoolkit.agents.reinforce import Reinforce, ReinforceConfig
from pgtoolkit.agents.reppo import Reppo, ReppoConfig
from pgtoolkit.agents.rpo import Rpo, RpoConfig
from pgtoolkit.agents.sapo import Sapo, SapoConfig
from pgtoolkit.agents.shac import Shac, ShacConfig
from pgtoolkit.agents.svg import Svg, SvgConfig
from pgtoolkit.agents.trpo import Trpo, TrpoConfig
from pgtoolkit.envs.control.pendulum import Pendulum
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.envs.wrappers.base import DifferentiableWrapper
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.rollouts.episodes import EpisodeTracker
from pgtoolkit.rollouts.evaluation import evaluate
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

SMALL: dict[str, Any] = {"num_envs": 6, "n_steps": 8, "hidden": (8,), "diagnostics_interval": 2}
AGENTS: dict[str, Callable[..., Any]] = {
    "reinforce": lambda env, **more: Reinforce(ReinforceConfig(**SMALL, **more), env),
    "reinforce, whole episodes": lambda env, **more: Reinforce(
        ReinforceConfig(**SMALL, rollout="episodes", ent_coef_relative=0.1, **more), env
    ),
    "a2c": lambda env, **more: A2c(A2cConfig(**SMALL, **more), env),
    "npg": lambda env, **more: Npg(NpgConfig(**SMALL, **more), env),
    "trpo": lambda env, **more: Trpo(TrpoConfig(**SMALL, **more), env),
    "ppo": lambda env, **more: Ppo(PpoConfig(**SMALL, batch_size=16, compile="never", **more), env),
    "reppo": lambda env, **more: Reppo(
        ReppoConfig(**SMALL, batch_size=16, compile="never", **more), env
    ),
    "apg": lambda env, **more: Apg(ApgConfig(**SMALL, estimator="pathwise", **more), env),
    "apg, mixed": lambda env, **more: Apg(ApgConfig(**SMALL, estimator="mixed", **more), env),
    "shac": lambda env, **more: Shac(ShacConfig(**SMALL, estimator="pathwise", **more), env),
    "shac, mixed": lambda env, **more: Shac(ShacConfig(**SMALL, estimator="mixed", **more), env),
    "sapo": lambda env, **more: Sapo(SapoConfig(**SMALL, **more), env),
    "ahac": lambda env, **more: Ahac(AhacConfig(**SMALL, **more), env),
    "rpo": lambda env, **more: Rpo(RpoConfig(**SMALL, **more), env),
    "shac, checkpointed": lambda env, **more: Shac(
        ShacConfig(**SMALL, checkpoint_every=3, **more), env
    ),
    **{
        f"svg, {horizon}": lambda env, horizon=horizon, **more: Svg(
            SvgConfig(**SMALL, horizon=horizon, learning_starts=1, batch_size=8, **more), env
        )
        for horizon in ("0", "1", "infinity")
    },
}
OWN_UNIT = ("train/reward_scale", "gradient/overhead")
"""Tags that may differ: the scale itself, and time."""
PROBE = (
    "gradient/probe/",
    "gradient/critic/bias",
    "gradient/critic_to_score/bias",
    "gradient/bias",
    "gradient/by_step",
)
"""Beginnings of tags that are in the unit of the environment's rewards where a critic is probed."""


@final
class Scaled(DifferentiableWrapper[Tensor]):
    """The Pendulum with episodes of 20 steps and another unit of rewards."""

    def __init__(self, scale: float) -> None:
        super().__init__(Pendulum())
        self.scale, self.max_episode_steps = scale, 20

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.scale * super().reward(state, action, next_state)


def scaled(scale: float) -> DifferentiableVectorEnv:
    return DifferentiableVectorEnv(Scaled(scale), SMALL["num_envs"])


def trained(agent: Any, updates: int = 5) -> dict[str, Tensor]:
    metrics: dict[str, Tensor] = {}
    for _ in range(updates):
        metrics = agent.update(agent.collect())
    return metrics


def weights(agent: Any) -> list[Tensor]:
    return [p.detach().clone() for p in agent.policy.parameters()]


@pytest.mark.parametrize("name", AGENTS)
def test_a_power_of_two_changes_no_bit_of_what_is_learned(name: str) -> None:
    """Policies and metrics of rewards times 2^10 are those of the rewards themselves.

    Gradients that are measured are in the unit of the environment's rewards.
    """
    ends = []
    for exponent in (0, 10):
        agent = AGENTS[name](scaled(2.0**exponent), normalize_rewards=True)
        metrics = trained(agent)
        std = float(metrics["train/reward_scale"]) / 2.0**exponent
        own = OWN_UNIT + (PROBE if hasattr(agent, "critic_monitor") else ())
        kept = {tag: x for tag, x in metrics.items() if not tag.startswith(own)}
        ends.append((std, weights(agent), kept))
    (std, parameters, metrics), (other_std, other_parameters, other_metrics) = ends
    assert std == other_std
    for one, other in zip(parameters, other_parameters, strict=True):
        assert torch.equal(one, other)
    assert metrics.keys() == other_metrics.keys()
    for tag, value in metrics.items():
        assert torch.equal(value * 2.0 ** (10 * power_of_reward(tag)), other_metrics[tag]), tag


SQUARES = ("variance", "variance_low", "variance_high", "signal", "bias", "bias_low", "bias_high")


def power_of_reward(tag: str) -> int:
    """The power of the environment's unit of reward in a metric of the measured gradients."""
    group, _, name = tag.rpartition("/")
    if group.startswith("gradient_parameters"):
        return 2
    if not group.startswith("gradient"):
        return 0
    return 2 if name in SQUARES else int(name == "norm")


def test_without_normalisation_the_unit_matters() -> None:
    """The counterpart: a2c's value function cannot follow returns of another size."""
    ends = []
    for exponent in (0, 10):
        agent = AGENTS["a2c"](scaled(2.0**exponent), normalize_rewards=False)
        assert "train/reward_scale" not in trained(agent)
        ends.append(weights(agent))
    assert not all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@pytest.mark.parametrize("exponent", [60, 70, 110])
@pytest.mark.parametrize("name", AGENTS)
def test_rewards_whose_squares_overflow_are_an_error_or_are_learned_from(
    name: str, exponent: int
) -> None:
    """Not a run that goes on with weights that stand still, as after a clip by an infinite norm."""
    agent = AGENTS[name](scaled(2.0**exponent), normalize_rewards=False)
    before = weights(agent)
    try:
        metrics = trained(agent, 3)
    except NonFiniteError:
        return
    assert all(bool(x.isfinite().all()) for x in weights(agent))
    assert any(not torch.equal(one, now) for one, now in zip(before, weights(agent), strict=True))
    assert math.isfinite(float(metrics.get("train/gradient_norm", torch.zeros(()))))


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_the_same_on_an_environment_of_arrays(name: str) -> None:
    """Gymnasium's CartPole, whose NEXT_STEP autoreset makes steps that do not count."""

    def make(scale: float) -> Any:
        return gymnasium.vector.SyncVectorEnv(
            [
                lambda: TransformReward(gymnasium.make("CartPole-v1"), lambda r: scale * float(r))
                for _ in range(SMALL["num_envs"])
            ]
        )

    ends = []
    for scale in (1.0, 2.0**20):
        agent = AGENTS[name](make(scale), normalize_rewards=True)
        trained(agent, 8)
        ends.append(weights(agent))
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


@pytest.mark.parametrize("name", AGENTS)
def test_what_is_collected_counted_and_evaluated_is_in_the_environments_unit(name: str) -> None:
    """Windows have the environment's rewards before and after the update, also the second one."""
    agent = AGENTS[name](scaled(100.0), normalize_rewards=True)
    tracker, ended = EpisodeTracker(SMALL["num_envs"]), []
    for _ in range(6):
        window = agent.collect()
        reward = window.reward.detach().clone()
        agent.update(window)
        assert torch.equal(window.reward.detach(), reward)
        ended += tracker.update(window)
        angle = torch.atan2(window.obs[..., 1], window.obs[..., 0])
        speed, torque = window.obs[..., 2], window.action[..., 0].clamp(-2, 2)
        own = -100 * (angle.square() + 0.1 * speed.square() + 0.001 * torque.square())
        torch.testing.assert_close(reward, own.detach(), rtol=1e-3, atol=1e-2)
    assert ended
    evaluations = [
        evaluate(
            DifferentiableVectorEnv(Scaled(scale), 4),
            agent.policy,
            episodes=4,
            seed=1,
            device=torch.device("cpu"),
        ).mean_return
        for scale in (1.0, 64.0)
    ]
    assert evaluations[1] == pytest.approx(64 * evaluations[0], rel=1e-5)


@pytest.mark.parametrize("name", AGENTS)
def test_a_resumed_run_has_the_same_scale(name: str, tmp_path: Path) -> None:
    """The sums that an episode has reached are saved, too: bit for bit as if never stopped."""
    whole = AGENTS[name](scaled(1000.0), normalize_rewards=True)
    trained(whole, 3)
    save_checkpoint(tmp_path / "state.safetensors", whole.state_dict())
    resumed = AGENTS[name](scaled(1000.0), normalize_rewards=True)
    trained(resumed, 1)
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.safetensors"))
    scales = [trained(agent, 4)["train/reward_scale"] for agent in (whole, resumed)]
    assert torch.equal(*scales)
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, other)


def test_ppo_normalises_by_default() -> None:
    """At a reward scale of 10,000 its value function would take all of the gradient's clip."""
    assert PpoConfig().normalize_rewards
