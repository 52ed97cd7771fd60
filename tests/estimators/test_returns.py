"""Returns and advantages against worked examples and brute force."""

import math

import pytest
import torch
from torch import Tensor

from pgtoolkit.estimators.returns import (
    gae,
    reward_to_go,
    segment_discount,
    segment_returns,
    soft_reward,
    steps_since_start,
    steps_to_end,
    td_lambda_returns,
)

F64 = torch.float64
NO = (0, 0, 0)

# Rewards 1, 2, 3; V(next_obs) 10, 20, 30; gamma = lambda = 1/2. Backwards, G_t = r_t + 1/2 x, with
# x = 1/2 v_t + 1/2 G_{t+1} on a step in the middle, v_t where the episode was cut (and at the
# window's end), 0 where it terminated.
LAMBDA_CASES = {
    # G_2 = 3 + .5 * 30 = 18; G_1 = 2 + .5 (10 + 9) = 11.5; G_0 = 1 + .5 (5 + 5.75) = 6.375
    "no end": (NO, NO, (6.375, 11.5, 18.0)),
    # G_1 = 2 + 0; G_0 = 1 + .5 (5 + 1) = 4
    "terminated in the middle": ((0, 1, 0), NO, (4.0, 2.0, 18.0)),
    # G_1 = 2 + .5 * 20 = 12; G_0 = 1 + .5 (5 + 6) = 6.5
    "truncated in the middle": (NO, (0, 1, 0), (6.5, 12.0, 18.0)),
    # Both flags: it terminated, so G_1 = 2 as above.
    "both in the middle": ((0, 1, 0), (0, 1, 0), (4.0, 2.0, 18.0)),
    # G_2 = 3; G_1 = 2 + .5 (10 + 1.5) = 7.75; G_0 = 1 + .5 (5 + 3.875) = 5.4375
    "terminated at the end": ((0, 0, 1), NO, (5.4375, 7.75, 3.0)),
    # Truncation at the window's end bootstraps as the end of the window does.
    "truncated at the end": (NO, (0, 0, 1), (6.375, 11.5, 18.0)),
    "both at the end": ((0, 0, 1), (0, 0, 1), (5.4375, 7.75, 3.0)),
    # G_1 = 2 + .5 * 20 = 12; G_0 = 1 + 0
    "one after the other": ((1, 0, 0), (0, 1, 0), (1.0, 12.0, 18.0)),
}


def column(values: tuple[float, ...]) -> Tensor:
    """The values as a tensor ``[T, 1]``, for one environment."""
    return torch.tensor(values, dtype=F64).unsqueeze(1)


def flags(values: tuple[int, ...]) -> Tensor:
    return torch.tensor(values).bool().unsqueeze(1)


@pytest.mark.parametrize("case", LAMBDA_CASES)
def test_td_lambda_return_of_three_steps(case: str) -> None:
    """The arithmetic is in the comments above."""
    terminated, truncated, expected = LAMBDA_CASES[case]
    found = td_lambda_returns(
        column((1, 2, 3)),
        column((10, 20, 30)),
        flags(terminated),
        flags(truncated),
        gamma=0.5,
        lambda_=0.5,
    )
    torch.testing.assert_close(found, column(expected), rtol=0, atol=0)


@pytest.mark.parametrize("case", LAMBDA_CASES)
def test_gae_of_three_steps_is_the_return_less_the_value(case: str) -> None:
    """With V(obs) = 4, 10, 20: each advantage is the return above less that."""
    terminated, truncated, expected = LAMBDA_CASES[case]
    found = gae(
        column((1, 2, 3)),
        column((4, 10, 20)),
        column((10, 20, 30)),
        flags(terminated),
        flags(truncated),
        gamma=0.5,
        lambda_=0.5,
    )
    torch.testing.assert_close(found, column(expected) - column((4, 10, 20)), rtol=0, atol=0)


def test_lambda_zero_is_the_one_step_return() -> None:
    """G_t = r_t + gamma v_t: 1 + 5, 2 + 10, 3 + 0 (terminated)."""
    found = td_lambda_returns(
        column((1, 2, 3)), column((10, 20, 30)), flags((0, 0, 1)), flags(NO), gamma=0.5, lambda_=0
    )
    assert found.flatten().tolist() == [6.0, 12.0, 3.0]


def test_lambda_one_is_monte_carlo_with_a_bootstrap_at_the_end() -> None:
    """G_2 = 3 + 15 = 18, G_1 = 2 + 9 = 11, G_0 = 1 + 5.5 = 6.5; V in the middle is not read."""
    found = td_lambda_returns(
        column((1, 2, 3)), column((1e9, 1e9, 30)), flags(NO), flags(NO), gamma=0.5, lambda_=1
    )
    assert found.flatten().tolist() == [6.5, 11.0, 18.0]


def test_the_value_after_termination_is_not_read_even_if_it_is_nan() -> None:
    """0 * NaN is NaN, so a product with (1 - terminated) would fail here."""
    nan = float("nan")
    found = td_lambda_returns(
        column((1, 2, 3)),
        column((10, nan, nan)),
        flags((0, 1, 1)),
        flags(NO),
        gamma=0.5,
        lambda_=0.5,
    )
    assert found.flatten().tolist() == [4.0, 2.0, 3.0]


def test_a_step_after_an_end_changes_nothing_before_it() -> None:
    """The fake step of NEXT_STEP autoreset, here in row 2, has no influence on rows 0 and 1."""
    reward, value = column((1, 2, 777, 4)), column((10, 20, 888, 40))
    ends = flags((0, 1, 0, 0))
    loud = td_lambda_returns(reward, value, ends, flags((0,) * 4), gamma=0.5, lambda_=0.5)
    reward, value = column((1, 2, 0, 4)), column((10, 20, 0, 40))
    quiet = td_lambda_returns(reward, value, ends, flags((0,) * 4), gamma=0.5, lambda_=0.5)
    assert loud[:2].tolist() == quiet[:2].tolist()
    assert loud[2] != quiet[2]


def test_reward_to_go_of_three_steps() -> None:
    """Without values: G_2 = 3, G_1 = 2 + 1.5 = 3.5, G_0 = 1 + 1.75 = 2.75."""
    found = reward_to_go(column((1, 2, 3)), flags(NO), flags(NO), gamma=0.5)
    assert found.flatten().tolist() == [2.75, 3.5, 3.0]


def test_reward_to_go_stops_at_an_end_of_either_kind() -> None:
    """An end at step 1: G_1 = 2, G_0 = 1 + 1 = 2."""
    for terminated, truncated in (((0, 1, 0), NO), (NO, (0, 1, 0)), ((0, 1, 0), (0, 1, 0))):
        found = reward_to_go(column((1, 2, 3)), flags(terminated), flags(truncated), gamma=0.5)
        assert found.flatten().tolist() == [2.0, 2.0, 3.0]


def test_reward_to_go_bootstraps_truncation_and_the_window_end_but_not_termination() -> None:
    """Truncated: G_1 = 2 + 10 = 12, G_0 = 1 + 6 = 7; terminated: 2 and 2; the end: 3 + 15 = 18."""
    values = column((10, 20, 30))
    cut = reward_to_go(column((1, 2, 3)), flags(NO), flags((0, 1, 0)), gamma=0.5, next_value=values)
    assert cut.flatten().tolist() == [7.0, 12.0, 18.0]
    over = reward_to_go(
        column((1, 2, 3)), flags((0, 1, 0)), flags(NO), gamma=0.5, next_value=values
    )
    assert over.flatten().tolist() == [2.0, 2.0, 18.0]


def random_data(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reward, V(next_obs), terminated and truncated ``[23, 7]``, with all combinations of flags."""
    generator = torch.Generator().manual_seed(seed)
    reward, next_value = torch.randn(2, 23, 7, generator=generator, dtype=F64)
    terminated, truncated = torch.rand(2, 23, 7, generator=generator) < 0.3
    assert bool((terminated & truncated).any())
    return reward, next_value, terminated, truncated


@pytest.mark.parametrize("lambda_", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_td_lambda_return_is_the_weighted_mean_of_n_step_returns(
    gamma: float, lambda_: float
) -> None:
    """Sutton and Barto 2018, eq. 12.3, environment by environment.

    ``(1 - l) sum_{n < L} l^(n-1) G^(n) + l^(L-1) G^(L)``, ``L`` steps to the end of the segment.
    """
    reward, next_value, terminated, truncated = random_data(0)
    found = td_lambda_returns(
        reward, next_value, terminated, truncated, gamma=gamma, lambda_=lambda_
    )
    num_steps, num_envs = reward.shape
    for env in range(num_envs):
        for start in range(num_steps):
            rewards, n_step = 0.0, []
            for t in range(start, num_steps):
                rewards += gamma ** (t - start) * float(reward[t, env])
                value = 0.0 if terminated[t, env] else float(next_value[t, env])
                n_step.append(rewards + gamma ** (t - start + 1) * value)
                if terminated[t, env] or truncated[t, env]:
                    break
            weights = [(1 - lambda_) * lambda_**n for n in range(len(n_step) - 1)]
            weights.append(lambda_ ** (len(n_step) - 1))
            expected = sum(w * g for w, g in zip(weights, n_step, strict=True))
            assert float(found[start, env]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_gae_is_the_textbook_recursion_of_td_errors(lambda_: float) -> None:
    """A_t = delta_t + gamma lambda (1 - done_t) A_{t+1} (Schulman et al. 2016, eq. 16).

    ``V(next_obs_t) = V(obs_{t+1})`` within an episode, and is another number at its end.
    """
    gamma = 0.9
    reward, ends, terminated, truncated = random_data(1)
    done = terminated | truncated
    value = torch.randn(reward.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    after = torch.cat([value[1:], ends[-1:]])
    next_value = torch.where(done, ends, after)
    found = gae(reward, value, next_value, terminated, truncated, gamma=gamma, lambda_=lambda_)
    delta = reward + gamma * next_value * (~terminated).double() - value
    advantage = torch.zeros_like(value[0])
    for t in range(reward.shape[0] - 1, -1, -1):
        advantage = delta[t] + gamma * lambda_ * (~done[t]).double() * advantage
        torch.testing.assert_close(found[t], advantage, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
def test_returns_without_future_are_rewards(lambda_: float) -> None:
    """Gamma 0: exactly, whatever the values and the flags."""
    reward, next_value, terminated, truncated = random_data(3)
    found = td_lambda_returns(reward, next_value, terminated, truncated, gamma=0, lambda_=lambda_)
    assert torch.equal(found, reward)


def test_environments_do_not_mix() -> None:
    """The return of one column alone is its return among others."""
    reward, next_value, terminated, truncated = random_data(4)
    together = td_lambda_returns(reward, next_value, terminated, truncated, gamma=0.9, lambda_=0.8)
    for env in range(reward.shape[1]):
        one = slice(env, env + 1)
        alone = td_lambda_returns(
            reward[:, one],
            next_value[:, one],
            terminated[:, one],
            truncated[:, one],
            gamma=0.9,
            lambda_=0.8,
        )
        assert torch.equal(alone, together[:, one])


def test_steps_discounts_and_returns_of_segments() -> None:
    """Ends after steps 1 and 4 of six make segments of steps 0 1, 2 3 4 and 5."""
    done = flags((0, 1, 0, 0, 1, 0))
    assert steps_since_start(done).flatten().tolist() == [0, 1, 0, 1, 2, 0]
    discount = segment_discount(done, 0.5)
    assert discount.dtype == F64
    assert discount.flatten().tolist() == [1.0, 0.5, 1.0, 0.5, 0.25, 1.0]
    returns = column((10, 11, 12, 13, 14, 15))
    assert segment_returns(returns, done).flatten().tolist() == [10, 10, 12, 12, 12, 15]


def test_an_end_on_the_last_step_starts_no_segment() -> None:
    """The count does not return to 0 after the last step; the next window starts the segment."""
    assert steps_since_start(flags((0, 0, 1))).flatten().tolist() == [0, 1, 2]
    assert steps_since_start(flags((1, 1, 1))).flatten().tolist() == [0, 0, 0]


def test_segments_of_random_ends_equal_a_count_by_hand() -> None:
    """A counter that is set to 0 after each end."""
    done = torch.rand(40, 9, generator=torch.Generator().manual_seed(5)) < 0.3
    returns = torch.randn(40, 9, generator=torch.Generator().manual_seed(6), dtype=F64)
    found, starts = steps_since_start(done), segment_returns(returns, done)
    for env in range(9):
        count, at_start = 0, float(returns[0, env])
        for t in range(40):
            assert int(found[t, env]) == count
            assert float(starts[t, env]) == at_start
            count = 0 if done[t, env] else count + 1
            if done[t, env] and t < 39:
                at_start = float(returns[t + 1, env])


def test_discounts_of_a_long_segment_do_not_lose_digits() -> None:
    """0.99^5000 is 1.5e-22: float64 has it to the last digits, a float32 running product not."""
    found = segment_discount(torch.zeros(5001, 1, dtype=torch.bool), 0.99)
    assert float(found[-1]) == pytest.approx(0.99**5000, rel=1e-12)


def test_a_value_with_a_trailing_axis_is_refused() -> None:
    """[T, N] and [T, N, 1] would broadcast to a wrong shape."""
    reward, next_value, terminated, truncated = random_data(7)
    with pytest.raises(ValueError, match="the same shape"):
        td_lambda_returns(
            reward, next_value.unsqueeze(-1), terminated, truncated, gamma=0.9, lambda_=0.9
        )
    with pytest.raises(ValueError, match="reward must have shape"):
        reward_to_go(reward[0], terminated[0], truncated[0], gamma=0.9)
    with pytest.raises(ValueError, match="the same shape"):
        gae(reward, reward[:1], next_value, terminated, truncated, gamma=0.9, lambda_=0.9)


def test_returns_carry_the_graph_of_rewards_and_values() -> None:
    """dG_0/dr = 1, 1/2, 0 past a truncation, and 1/4 on the value of the cut state."""
    reward = column((1, 2, 3)).requires_grad_()
    value = column((10, 20, 30)).requires_grad_()
    found = td_lambda_returns(reward, value, flags(NO), flags((0, 1, 0)), gamma=0.5, lambda_=1)
    by_reward, by_value = torch.autograd.grad(found[0, 0], [reward, value])
    assert by_reward.flatten().tolist() == [1.0, 0.5, 0.0]
    assert by_value.flatten().tolist() == [0.0, 0.25, 0.0]


def test_a_soft_reward_has_the_next_states_entropy_unless_there_is_no_next_action() -> None:
    terminated = torch.tensor([[False, True]])
    found = soft_reward(
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([[2.0, math.inf]]),
        terminated,
        gamma=0.9,
        temperature=torch.tensor(0.5),
    )
    torch.testing.assert_close(found, torch.tensor([[1.9, 1.0]]))


def test_steps_to_the_end_of_a_segment() -> None:
    """Segments of 2 and 3 steps, and one of 5."""
    ends = torch.zeros(5, 2, dtype=torch.bool)
    ends[1, 0] = True
    ends[-1] = True
    expected = torch.tensor([[1, 4], [0, 3], [2, 2], [1, 1], [0, 0]])
    assert torch.equal(steps_to_end(ends), expected)
