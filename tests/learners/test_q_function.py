"""Q functions made from an agent's settings."""

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces

from pgtoolkit.config import CriticSettings, PolicySettings
from pgtoolkit.errors import RequestError
from pgtoolkit.learners.q_function import make_q_ensemble
from pgtoolkit.networks.value import HLGauss, PolicyValue

OBSERVATIONS = spaces.Box(-1, 1, (3,))
ACTIONS = spaces.Box(-2, 2, (2,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(PolicySettings, CriticSettings):
    policy_value: ClassVar[PolicyValue] = "first"
    hidden: tuple[int, ...] = (8,)
    num_critics: int = 2


def test_the_settings_name_head_number_and_layers() -> None:
    """Two critics of 51 bins between -7 and 7, with LayerNorm; the policy climbs the first."""
    config = Settings(critic="hl_gauss", value_range=7.0, num_bins=51, critic_layer_norm=True)
    q = make_q_ensemble(config, (OBSERVATIONS, ACTIONS), seed=0)
    obs, action = torch.randn(5, 4, 3), torch.randn(5, 4, 2)
    assert q(obs, action).shape == (2, 5, 4)
    assert torch.equal(q.policy_value(obs, action), q(obs, action)[0])
    for member in q.functions:
        assert isinstance(member.head, HLGauss)
        assert (member.head.low, member.head.high) == (-7.0, 7.0)
        assert member.head.num_outputs == 51
        assert any(isinstance(layer, torch.nn.LayerNorm) for layer in member.network)


def test_weights_follow_from_the_seed_and_differ_between_members() -> None:
    same = [make_q_ensemble(Settings(), (OBSERVATIONS, ACTIONS), seed=s) for s in (0, 0, 1)]
    weights = [[next(m.network.parameters()) for m in q.functions] for q in same]
    assert torch.equal(weights[0][0], weights[1][0])
    assert not torch.equal(weights[0][0], weights[0][1])
    assert not torch.equal(weights[0][0], weights[2][0])


def test_images_are_encoded_before_the_action_joins() -> None:
    images = spaces.Box(0, 255, (16, 16, 3), np.uint8)
    q = make_q_ensemble(Settings(), (images, ACTIONS), seed=0)
    assert q(torch.rand(5, 3 * 16 * 16), torch.randn(5, 2)).shape == (2, 5)


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(RequestError, match="continuous actions"):
        make_q_ensemble(Settings(), (OBSERVATIONS, spaces.Discrete(2)), seed=0)


def test_a_fresh_hl_gauss_critic_is_near_0_in_every_state() -> None:
    """Within a thousandth of the range; random logits would be off by some hundredths."""
    config = Settings(critic="hl_gauss", value_range=300.0)
    q = make_q_ensemble(config, (OBSERVATIONS, ACTIONS), seed=0)
    generator = torch.Generator().manual_seed(0)
    obs, action = (torch.randn(100, size, generator=generator) for size in (3, 2))
    assert q(obs, action).abs().max().item() < 0.3


def test_actions_are_read_in_units_of_their_box() -> None:
    """An entry without width is 0, whatever its value."""
    found = []
    for low, high in (((-1.0, 5.0), (1.0, 5.0)), ((10.0, 5.0), (30.0, 5.0))):
        space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        q = make_q_ensemble(Settings(), (OBSERVATIONS, space), seed=0)
        middle, half = 0.5 * (high[0] + low[0]), 0.5 * (high[0] - low[0])
        action = torch.tensor([[middle + half * 0.25, 5.0]])
        found.append(q(torch.ones(1, 3), action))
    torch.testing.assert_close(found[0], found[1])
