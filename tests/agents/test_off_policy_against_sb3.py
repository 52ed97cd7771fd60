"""SAC and TD3 make the updates of Stable-Baselines3's: same weights, batch and noise."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pgtoolkit.agents.sac import Sac, SacBatch, SacConfig
from pgtoolkit.agents.td3 import Td3, Td3Batch, Td3Config

sb3 = pytest.importorskip("stable_baselines3")

ENV, ROWS, HIDDEN = "Pendulum-v1", 64, (32, 32)
TAU = 0.5
"""With 0.005 the target networks move by hardly more than float32 rounds their weights."""
SHARE = 5e-5
"""Largest distance of two results, as a share of the distance that the parameters moved."""
Parts = dict[str, list[Tensor]]


def small(kind: Any, config: type[Any], **settings: Any) -> Any:
    env = gymnasium.make_vec(ENV, 1, vectorization_mode="sync")
    given = {"hidden": HIDDEN, "compile": "never", "diagnostics_interval": 0, "tau": TAU}
    return kind(config(**(given | settings)), env, seed=1)


def peer(kind: Any, **settings: Any) -> Any:
    model = kind(
        "MlpPolicy",
        ENV,
        device="cpu",
        seed=3,
        buffer_size=1000,
        tau=TAU,
        policy_kwargs={"net_arch": list(HIDDEN)},
        **settings,
    )
    model._setup_learn(1)
    return model


def linears(*modules: nn.Module) -> list[nn.Linear]:
    return [x for module in modules for x in module.modules() if isinstance(x, nn.Linear)]


def tensors(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for x in linears(*modules) for p in (x.weight, x.bias)]


def copy_into(module: nn.Module, values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(
            (p for x in linears(module) for p in (x.weight, x.bias)), values, strict=True
        ):
            parameter.copy_(value)


def joined_head(values: list[Tensor]) -> list[Tensor]:
    """SB3's actor of SAC has two output layers, mean and log std; ours is one of both."""
    *torso, mean, mean_bias, log_std, log_std_bias = values
    return [*torso, torch.cat([mean, log_std]), torch.cat([mean_bias, log_std_bias])]


def batches(count: int) -> Iterator[dict[str, Tensor]]:
    """Transitions ``[B, ...]`` in units of SB3's buffer, actions in [-1, 1]; some are terminal."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        yield {
            "obs": torch.randn(ROWS, 3, generator=generator),
            "action": 2 * torch.rand(ROWS, 1, generator=generator) - 1,
            "reward": torch.randn(ROWS, generator=generator),
            "next_obs": torch.randn(ROWS, 3, generator=generator),
            "done": (torch.rand(ROWS, generator=generator) < 0.2).float(),
            "noise": torch.randn(ROWS, 1, generator=generator),
            "next_noise": torch.randn(ROWS, 1, generator=generator),
        }


def give(model: Any, monkeypatch: pytest.MonkeyPatch, batch: dict[str, Tensor]) -> None:
    """Makes the peer's next update use this batch."""
    data = sb3.common.type_aliases.ReplayBufferSamples(
        batch["obs"],
        batch["action"],
        batch["next_obs"],
        batch["done"][:, None],
        batch["reward"][:, None],
    )
    monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, **__: data)


def require_same(before: Parts, ours: Parts, theirs: Parts, share: float = SHARE) -> None:
    for name, start in before.items():
        flat = [torch.cat([x.flatten() for x in p[name]]).double() for p in (ours, theirs)]
        moved = float((flat[1] - torch.cat([x.flatten() for x in start]).double()).norm())
        assert moved > 0, name
        assert float((flat[0] - flat[1]).norm()) <= share * moved, name


def sac_parts(model: Any) -> Parts:
    return {
        "policy": joined_head(tensors(model.actor.latent_pi, model.actor.mu, model.actor.log_std)),
        "critics": tensors(model.critic),
        "target": tensors(model.critic_target),
        "temperature": [model.log_ent_coef.detach().clone()],
    }


def our_sac_parts(agent: Sac) -> Parts:
    return {
        "policy": tensors(agent.policy),
        "critics": tensors(agent.q),
        "target": tensors(agent.target.copy),
        "temperature": [agent.alpha_rule.parameters[0].detach().clone()],
    }


@pytest.mark.parametrize(
    ("log_std", "compile"),
    [(-0.5, "never"), (-20.0, "never"), pytest.param(-0.5, "always", marks=pytest.mark.slow)],
)
def test_sac(monkeypatch: pytest.MonkeyPatch, log_std: float, compile: str) -> None:
    """Three updates one after another, each with a batch of its own.

    Around -20 the logarithm of the standard deviation is clamped in about half of the states.
    """
    model, agent = peer(sb3.SAC), small(Sac, SacConfig, compile=compile)
    nn.init.constant_(model.actor.log_std.bias, log_std)
    start = sac_parts(model)
    copy_into(agent.policy, start["policy"])
    copy_into(agent.q, start["critics"])
    copy_into(agent.target.copy, start["target"])
    for batch in batches(3):
        give(model, monkeypatch, batch)
        draws = iter([batch["noise"], batch["next_noise"]])
        monkeypatch.setattr(
            torch.distributions.Normal,
            "rsample",
            lambda self, *_, draws=draws: self.loc + self.scale * next(draws),
        )
        model.train(1, ROWS)
        mini = SacBatch(
            batch["obs"],
            2 * batch["action"],
            batch["reward"],
            batch["next_obs"],
            1 - batch["done"],
            batch["noise"],
            batch["next_noise"],
        )
        learn_sac(agent, mini)
        require_same(start, our_sac_parts(agent), sac_parts(model))


def learn_sac(agent: Sac, mini: SacBatch) -> None:
    """One gradient step on a given minibatch, as an update makes it on one that is drawn."""
    agent.take(SacBatch(*(x[None] for x in mini)), agent.config.learning_rate)


def td3_parts(model: Any) -> Parts:
    return {
        "policy": tensors(model.actor),
        "critics": tensors(model.critic),
        "target policy": tensors(model.actor_target),
        "target critics": tensors(model.critic_target),
    }


def our_td3_parts(agent: Td3) -> Parts:
    return {
        "policy": tensors(agent.policy),
        "critics": tensors(agent.q),
        "target policy": tensors(agent.target_policy.copy),
        "target critics": tensors(agent.target_q.copy),
    }


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_td3(monkeypatch: pytest.MonkeyPatch, delay: int) -> None:
    """Six updates of one minibatch: with and without a step of the policy."""
    model = peer(sb3.TD3, policy_delay=delay)
    agent = small(Td3, Td3Config, policy_delay=delay)
    with torch.no_grad():  # larger actions, so that smoothed ones are clipped to the box
        linears(model.actor)[-1].weight.mul_(10)
        model.actor_target.load_state_dict(model.actor.state_dict())
    start = td3_parts(model)
    copy_into(agent.policy, start["policy"])
    copy_into(agent.q, start["critics"])
    copy_into(agent.target_policy.copy, start["target policy"])
    copy_into(agent.target_q.copy, start["target critics"])
    for number, batch in enumerate(batches(6)):
        give(model, monkeypatch, batch)
        torch.manual_seed(number)
        noise = torch.empty(ROWS, 1).normal_(0, 0.2) / 0.2
        torch.manual_seed(number)
        model.train(1, ROWS)
        mini = Td3Batch(
            batch["obs"],
            2 * batch["action"],
            batch["reward"],
            batch["next_obs"],
            1 - batch["done"],
            noise,
        )
        agent.take(Td3Batch(*(x[None] for x in mini)), agent.config.learning_rate)
        moved = start if number + 1 >= delay else {"critics": start["critics"]}
        require_same(moved, our_td3_parts(agent), td3_parts(model))


def test_given_actions_are_those_of_the_box() -> None:
    """SB3 scales actions of the box [-2, 2] to [-1, 1], as our Q functions do themselves."""
    model, agent = peer(sb3.TD3), small(Td3, Td3Config)
    copy_into(agent.q, tensors(model.critic))
    obs, action = torch.randn(5, 3), torch.tensor([[-2.0], [-1.0], [0.0], [0.5], [2.0]])
    scaled = torch.as_tensor(model.policy.scale_action(np.asarray(action)))
    with torch.no_grad():
        expected = torch.stack([x.squeeze(-1) for x in model.critic(obs, scaled)])
        assert torch.allclose(agent.q(obs, action), expected, atol=1e-6)
