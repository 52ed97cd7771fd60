"""The running scale of the discounted return, and what is divided by it."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.rollouts.reward_normalizer import (
    TARGET,
    RewardNormalizer,
    running_returns,
)
from pgtoolkit.rollouts.window import Window
from pgtoolkit.training.checkpoint import load_checkpoint, save_checkpoint

GAMMA = 0.9


def window_of(reward: Tensor, **fields: Tensor) -> Window:
    """A window ``[T, N]`` with these rewards, in which no episode begins or ends."""
    vectors, no = torch.zeros(*reward.shape, 1), torch.zeros(reward.shape, dtype=torch.bool)
    names = ("obs", "next_obs", "noise", "pre_action", "action")
    made: dict[str, Any] = dict.fromkeys(names, vectors) | {
        "log_prob": torch.zeros(reward.shape),
        "reward": reward,
        "terminated": no,
        "truncated": no,
        "valid": ~no,
        "episode_start": no,
    }
    return Window(**(made | fields))


def seen(*windows: Window, gamma: float = GAMMA) -> RewardNormalizer:
    normalizer = RewardNormalizer(windows[0].num_envs, gamma)
    for window in windows:
        normalizer.update(window)
    return normalizer


def pieces(window: Window, *ends: int) -> list[Window]:
    """The window cut in time before these steps."""
    limits = [0, *ends, window.num_steps]
    without = ("action_shift", "success")
    names = [field.name for field in dataclasses.fields(Window) if field.name not in without]
    return [
        Window(**{name: getattr(window, name)[start:end] for name in names})
        for start, end in itertools.pairwise(limits)
    ]


def eventful(reward_size: float = 1.0) -> Window:
    """40 steps of three environments with ends of episodes and steps that are only resets."""
    generator = torch.Generator().manual_seed(0)
    done = torch.rand(40, 3, generator=generator) < 0.2
    valid = torch.cat([torch.ones(1, 3, dtype=torch.bool), ~done[:-1]])
    done = done & valid
    valid = torch.cat([torch.ones(1, 3, dtype=torch.bool), ~done[:-1]])
    start = torch.cat([torch.ones(1, 3, dtype=torch.bool), ~valid[:-1]])
    reward = reward_size * (torch.randn(40, 3, generator=generator) + 0.3)
    return window_of(reward, terminated=done, valid=valid, episode_start=start)


def returns_by_hand(window: Window, gamma: float = GAMMA) -> list[float]:
    """``G_t`` of all valid steps, one environment after the other."""
    found = []
    assert window.episode_start is not None
    for env in range(window.num_envs):
        running = 0.0
        for t in range(window.num_steps):
            if bool(window.episode_start[t, env]):
                running = 0.0
            if bool(window.valid[t, env]):
                running = float(window.reward[t, env]) + gamma * running
                found.append(running)
    return found


def test_a_constant_reward_by_hand() -> None:
    """Rewards of 2 and gamma 1/2: G is 2, 3, 3.5, of variance 14/36."""
    normalizer = seen(window_of(torch.full((3, 1), 2.0)), gamma=0.5)
    assert float(normalizer.mean) == pytest.approx(8.5 / 3)
    assert float(normalizer.scale) == pytest.approx(math.sqrt(14 / 36) / TARGET)
    found = normalizer(window_of(torch.tensor([[2.0], [-1.0]]))).reward
    torch.testing.assert_close(found, TARGET * torch.tensor([[2.0], [-1.0]]) / math.sqrt(14 / 36))


def test_a_constant_reward_has_a_geometric_return() -> None:
    """``G_t = r (1 - gamma^(t+1)) / (1 - gamma)``, over windows of any length."""
    window = window_of(torch.full((50, 2), -3.0))
    expected = -3.0 * (1 - GAMMA ** torch.arange(1.0, 51.0).double()) / (1 - GAMMA)
    std = expected.std(unbiased=False)
    for normalizer in (seen(window), seen(*pieces(window, 7, 8, 31))):
        torch.testing.assert_close(TARGET * normalizer.scale, std, rtol=1e-12, atol=0)
        assert float(normalizer.count) == 100


def test_independent_rewards_have_the_variance_of_a_geometric_series() -> None:
    """``E[G_t^2] = (1 - gamma^(2t+2)) / (1 - gamma^2)`` for rewards of variance 1, within 5 SE."""
    reward = torch.randn(30, 4000, generator=torch.Generator().manual_seed(1))
    normalizer = seen(window_of(reward))
    steps = torch.arange(30).double()
    expected = ((1 - GAMMA ** (2 * steps + 2)) / (1 - GAMMA**2)).mean()
    start = torch.zeros(30, 4000, dtype=torch.bool)
    found = running_returns(
        reward.double().numpy(), start.numpy(), torch.zeros(4000).double().numpy(), GAMMA
    )
    error = torch.from_numpy(found).square().mean(0).std() / math.sqrt(4000)
    assert abs(float(TARGET**2 * normalizer.scale.square() - expected)) < 5 * float(error)


@pytest.mark.parametrize("ends", [(), (1,), (13, 14, 30)])
def test_masks_and_starts_against_a_loop(ends: tuple[int, ...]) -> None:
    """Steps that are only resets do not count, and G starts anew with each episode."""
    window = eventful()
    assert window.valid.all(0).sum() == 0
    expected = torch.tensor(returns_by_hand(window), dtype=torch.float64)
    normalizer = seen(*pieces(window, *ends))
    assert float(normalizer.count) == len(expected)
    torch.testing.assert_close(normalizer.mean, expected.mean(), rtol=1e-12, atol=1e-12)
    std = expected.std(unbiased=False)
    torch.testing.assert_close(TARGET * normalizer.scale, std, rtol=1e-12, atol=0)


def test_a_window_without_starts_begins_an_episode_after_each_end() -> None:
    """Also where the end is the last step of the window before; invalid rewards are not read."""
    window = eventful()
    reward = torch.where(window.valid, window.reward, torch.nan)
    bare = dataclasses.replace(window, reward=reward, episode_start=None)
    last = int(window.done.any(1).nonzero()[-1])
    cut = [
        dataclasses.replace(piece, episode_start=None)
        for piece in pieces(dataclasses.replace(window, reward=reward), last + 1)
    ]
    expected = seen(window).scale
    for normalizer in (seen(bare), seen(*cut)):
        torch.testing.assert_close(normalizer.scale, expected, rtol=1e-12, atol=0)


def test_a_start_without_an_end_begins_anew() -> None:
    """After a reset that no step shows, as before every batch of whole episodes."""
    one = torch.ones(2, 1)
    start = torch.tensor([[True], [False]])
    normalizer = seen(*[window_of(one, episode_start=start)] * 3)
    assert float(normalizer.mean) == pytest.approx((1 + 1.9) / 2)


@pytest.mark.parametrize("exponent", [-60, -10, 10, 60])
def test_rewards_times_a_power_of_two_are_normalised_to_the_same_bits(exponent: int) -> None:
    """From 1e-18 to 1e18: no constant is added to the variance."""
    parts = pieces(eventful(), 5, 21)
    larger = [dataclasses.replace(p, reward=p.reward * 2.0**exponent) for p in parts]
    one, other = seen(*parts), seen(*larger)
    assert float(other.scale) == float(one.scale) * 2.0**exponent
    for part, scaled in zip(parts, larger, strict=True):
        assert torch.equal(one(part).reward, other(scaled).reward)


@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e6, 1e30])
def test_normalised_returns_have_the_stated_standard_deviation(size: float) -> None:
    """The whole range of float32."""
    window = eventful(size)
    normalizer = seen(window)
    assert float(seen(normalizer(window)).scale) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-30])
def test_a_return_without_variance_leaves_rewards_as_they_are(value: float) -> None:
    """Episodes of one step with one reward, over several windows: only rounding errors differ."""
    yes = torch.ones(7, 3, dtype=torch.bool)
    window = window_of(torch.full((7, 3), value), terminated=yes, episode_start=yes)
    normalizer = seen(*[window] * 5)
    assert float(normalizer.scale) == 1
    assert torch.equal(normalizer(window).reward, window.reward)


def test_rounding_errors_of_a_constant_are_no_variance() -> None:
    """Neighbouring float32 numbers in turns; divided by their deviation, they would be 1e7."""
    yes = torch.ones(8, 3, dtype=torch.bool)
    reward = torch.full((8, 3), 0.7)
    reward[::2] = torch.nextafter(reward[::2], torch.ones(()))
    window = window_of(reward, terminated=yes, episode_start=yes)
    assert float(seen(window).scale) == 1
    small = dataclasses.replace(window, reward=reward + 1e-4 * torch.arange(8.0).unsqueeze(1))
    assert float(seen(small).scale) == pytest.approx(1e-4 * math.sqrt(63 / 12) / TARGET, rel=1e-2)


def test_before_the_first_valid_step_rewards_are_left_as_they_are() -> None:
    window = eventful()
    nothing = dataclasses.replace(window, valid=torch.zeros_like(window.valid))
    for normalizer in (RewardNormalizer(3, GAMMA), seen(nothing)):
        assert torch.equal(normalizer(window).reward, window.reward)


def test_the_graph_of_rewards_is_kept_and_nothing_else_changes() -> None:
    """The gradient is divided by the same number; the window that was given is not touched."""
    reward = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    window = window_of(reward)
    normalizer = seen(window)
    found = normalizer(window)
    found.reward.sum().backward()  # type: ignore[no-untyped-call]
    assert reward.grad is not None
    torch.testing.assert_close(
        reward.grad, (1 / normalizer.scale).float().expand(5, 2), rtol=1e-6, atol=0
    )
    assert window.reward is reward and found.reward.dtype == reward.dtype
    assert all(
        getattr(found, field.name) is getattr(window, field.name)
        for field in dataclasses.fields(Window)
        if field.name != "reward"
    )


def test_a_saved_normaliser_goes_on_bit_for_bit(tmp_path: Path) -> None:
    first, second, third = pieces(eventful(), 11, 23)
    whole, resumed = seen(first, second), RewardNormalizer(3, GAMMA)
    save_checkpoint(tmp_path / "state.safetensors", whole.state_dict())
    resumed.load_state_dict(load_checkpoint(tmp_path / "state.safetensors"))
    for normalizer in (whole, resumed):
        normalizer.update(third)
    assert torch.equal(whole(third).reward, resumed(third).reward)
    assert torch.equal(whole.running, resumed.running)
