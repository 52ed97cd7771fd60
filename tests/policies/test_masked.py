"""Discrete policies that follow the observation's action mask."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import pgtoolkit
from pgtoolkit.agents.ppo import PpoConfig
from pgtoolkit.distributions.discrete import Bernoulli
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.parts import RowWithParts
from pgtoolkit.policies.discrete import CategoricalPolicy, MaskedHead, MultiCategoricalHead
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.policies.gaussian import GaussianPolicy
from pgtoolkit.policies.policy import Policy

SPACE = RowWithParts(np.full(5, -9, np.float32), np.full(5, 9, np.float32), action_mask=(2, 5))


def policy(seed: int = 0) -> Policy:
    made = CategoricalPolicy(
        SPACE, spaces.Discrete(3), generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():  # logits that differ
        for parameter in made.head.parameters():
            parameter.mul_(100)
    return made


def observations(mask: list[int], count: int = 1) -> Tensor:
    own = torch.randn(count, 2, generator=torch.Generator().manual_seed(1))
    return torch.cat([own, torch.tensor(mask, dtype=torch.float32).expand(count, 3)], -1)


MASKS = [list(mask) for mask in itertools.product((0, 1), repeat=3) if any(mask)]


@pytest.mark.parametrize("mask", MASKS)
def test_probabilities_are_the_softmax_over_what_is_allowed(mask: list[int]) -> None:
    """Log-probability, entropy and divergence have their closed forms, without a NaN."""
    obs, allowed = observations(mask), torch.tensor(mask, dtype=torch.bool)
    distribution, other = policy()(obs), policy(seed=1)(obs)
    logits, of_other = (
        p(observations([1, 1, 1])).parameter[0, allowed] for p in (policy(), policy(1))
    )
    expected, expected_other = logits.softmax(-1), of_other.softmax(-1)
    found = distribution.log_prob(torch.arange(3)).exp()
    assert torch.allclose(found[allowed], expected, atol=1e-6)
    assert (found[~allowed] == 0).all()
    assert torch.allclose(distribution.entropy(), -(expected * expected.log()).sum(), atol=1e-6)
    divergence = distribution.closed_form_kl_divergence(other)
    assert divergence is not None
    expected_divergence = (expected * (expected / expected_other).log()).sum()
    assert torch.allclose(divergence, expected_divergence, atol=1e-5)


@pytest.mark.parametrize("mask", MASKS)
def test_what_is_forbidden_is_never_drawn_and_never_the_mode(mask: list[int]) -> None:
    actor, obs = policy(), observations(mask, count=5000)
    noise = actor.draw_noise(5000, generator=torch.Generator().manual_seed(2))
    drawn = actor(obs).pre_action(noise)
    allowed = torch.tensor(mask, dtype=torch.bool)
    assert allowed[drawn].all() and allowed[actor(obs).mode].all()


def test_no_gradient_reaches_the_logits_of_what_is_forbidden() -> None:
    actor = policy()
    loss = actor.log_derivative_loss(
        observations([1, 0, 1]), torch.tensor([2]), torch.tensor([1.0])
    )
    assert isinstance(actor.head, MaskedHead)
    (gradient,) = torch.autograd.grad(loss.sum(), actor.head.head.output.bias)
    assert gradient[1] == 0 and (gradient[[0, 2]] != 0).all()


def test_several_variables_have_their_masks_one_after_the_other() -> None:
    space = RowWithParts(np.zeros(6, np.float32), np.ones(6, np.float32), action_mask=(1, 6))
    actor = make_policy(PpoConfig(), space, spaces.MultiDiscrete([2, 3]), torch.Generator())
    obs = torch.tensor([[0.5, 0, 1, 1, 0, 1]]).expand(2000, 6)
    drawn = actor(obs).pre_action(
        actor.draw_noise(2000, generator=torch.Generator().manual_seed(0))
    )
    assert (drawn[:, 0] == 1).all() and set(drawn[:, 1].tolist()) == {0, 2}


@pytest.mark.parametrize("mask", MASKS)
def test_a_binary_variable_that_may_not_be_one_is_zero(mask: list[int]) -> None:
    """The others have the probabilities, entropies and divergences that they have alone."""
    first, second = (
        make_policy(PpoConfig(), SPACE, spaces.MultiBinary(3), torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    allowed = torch.tensor(mask, dtype=torch.bool)
    obs, every = observations(mask).expand(2000, 5), observations([1, 1, 1])
    found, other = first(obs), second(obs)
    alone, other_alone = (Bernoulli(p(every).parameter[:, allowed]) for p in (first, second))
    drawn = found.pre_action(first.draw_noise(2000, generator=torch.Generator().manual_seed(2)))
    assert (drawn[:, ~allowed] == 0).all()
    assert (drawn[:, allowed].float().mean(0) % 1 > 0).all()
    log_prob = alone.log_prob(drawn[:, allowed])
    torch.testing.assert_close(found.log_prob(drawn), log_prob)
    torch.testing.assert_close(found.entropy()[:1], alone.entropy())
    divergence = found.closed_form_kl_divergence(other)
    expected = alone.closed_form_kl_divergence(other_alone)
    assert divergence is not None and expected is not None
    torch.testing.assert_close(divergence[:1], expected)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(RequestError, match="has 3 entries, and there are 4 actions"):
        CategoricalPolicy(SPACE, spaces.Discrete(4))


def test_a_mask_for_continuous_actions_is_refused() -> None:
    with pytest.raises(RequestError, match="only Discrete, MultiDiscrete and MultiBinary"):
        GaussianPolicy(SPACE, spaces.Box(-1, 1, (2,), np.float32))


class Strict(gymnasium.Env):
    """Pays the action's number, and fails when an action is forbidden."""

    def __init__(self) -> None:
        parts = {"place": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)}
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Discrete(3)

    def look(self) -> dict[str, np.ndarray]:
        self.mask = np.zeros(3, np.int8)
        self.mask[self.np_random.choice(3, 2, replace=False)] = 1
        return {"place": np.ones(2, np.float32), "action_mask": self.mask}

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self.time = 0
        return self.look(), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        assert self.mask[action], "forbidden"
        self.time += 1
        return self.look(), float(action), False, self.time == 10, {}


@pytest.mark.parametrize("agent", ["reinforce", "a2c", "ppo", "npg", "trpo"])
def test_agents_train_and_evaluate_within_the_mask(agent: str) -> None:
    small = {"num_envs": 4, "n_steps": 10, "eval_episodes": 10, "quiet": True}
    run = pgtoolkit.train(agent, Strict, total_steps=400, **small)  # type: ignore[arg-type]
    assert run.evaluate(5).mean_return > 0


def test_a_mask_that_allows_nothing_is_a_fault_of_the_environment() -> None:
    class Nothing(Strict):
        def look(self) -> dict[str, np.ndarray]:
            return {"place": np.ones(2, np.float32), "action_mask": np.zeros(3, np.int8)}

    with pytest.raises(RequestError, match="allows no action"):
        pgtoolkit.train("ppo", Nothing, total_steps=40, quiet=True)


def test_a_mask_may_allow_nothing_where_the_episode_ends() -> None:
    class Ends(Strict):
        def look(self) -> dict[str, np.ndarray]:
            found = super().look()
            return found | ({"action_mask": np.zeros(3, np.int8)} if self.time == 10 else {})

    pgtoolkit.train("ppo", Ends, total_steps=40, num_envs=2, n_steps=20, quiet=True)


def test_heads_of_several_variables_can_be_masked() -> None:
    head = MultiCategoricalHead(4, (2, 2), generator=torch.Generator())
    assert MaskedHead(head, 4).action_size == 2
