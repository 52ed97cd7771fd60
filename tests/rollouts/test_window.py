"""Windows: where segments end, windows that are joined, and objectives of several segments."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from pgtoolkit.estimators.returns import td_lambda_returns, window_returns
from pgtoolkit.estimators.surrogates import matched_score_weight, window_objective
from pgtoolkit.rollouts.window import FIELDS, Window, concatenate, first_episodes, map_window


def flags(*columns: tuple[int, ...]) -> Tensor:
    """One column per environment ``[T, N]`` bool."""
    return torch.tensor(columns, dtype=torch.bool).T.contiguous()


def window(num_steps: int, num_envs: int, **given: Any) -> Window:
    """Reward 1 in every step, nothing ends and all steps are valid, unless given otherwise."""
    zeros, no = torch.zeros(num_steps, num_envs, 1), torch.zeros(num_steps, num_envs).bool()
    fields: dict[str, Any] = {
        "obs": zeros,
        "next_obs": zeros,
        "noise": zeros,
        "pre_action": zeros,
        "action": zeros,
        "log_prob": zeros[..., 0],
        "reward": torch.ones(num_steps, num_envs),
        "terminated": no,
        "truncated": no,
        "valid": ~no,
    }
    return Window(**(fields | given))


def columns(tensor: Tensor) -> list[list[Any]]:
    return tensor.T.tolist()


# Where segments end -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminated", "truncated", "valid", "end"),
    [
        ((0, 0, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 0, 1)),
        ((0, 1, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 1)),
        ((0, 0, 0, 0), (1, 0, 0, 1), (1, 1, 1, 1), (1, 0, 0, 1)),
        ((0, 1, 0, 0), (0, 0, 0, 0), (1, 1, 0, 1), (0, 1, 1, 1)),
        ((0, 0, 0, 0), (0, 0, 0, 0), (1, 1, 0, 0), (0, 1, 1, 1)),
        ((0, 0, 0, 0), (0, 0, 0, 0), (0, 1, 1, 1), (1, 0, 0, 1)),
    ],
    ids=["window", "terminated", "truncated", "reset step", "stopped early", "began late"],
)
def test_segments_end_by_default_with_episodes_the_window_and_steps_that_never_happened(
    terminated: tuple[int, ...], truncated: tuple[int, ...], valid: tuple[int, ...], end: Any
) -> None:
    """In the second environment nothing ends, so only the window's end is one."""
    quiet, all_steps = (0, 0, 0, 0), (1, 1, 1, 1)
    found = window(
        4,
        2,
        terminated=flags(terminated, quiet),
        truncated=flags(truncated, quiet),
        valid=flags(valid, all_steps),
    )
    assert columns(found.segment_end.int()) == [list(end), [0, 0, 0, 1]]


def test_the_ends_that_an_agent_sets_are_kept() -> None:
    """``segment_end`` is kept by ``detach`` and by ``map_window``."""
    end = flags((0, 1, 0, 1), (0, 0, 0, 1))
    made = window(4, 2, segment_end=end)
    for found in (made, made.detach(), map_window(Tensor.clone, made)):
        assert torch.equal(found.segment_end, end)


# Two environments with horizons 2 and 4, reward 1, V = 10 -----------------------------------------

TEN = torch.full((4, 2), 10.0)
NO = torch.zeros(4, 2, dtype=torch.bool)


def test_an_environment_with_horizon_two_has_two_segments_with_a_bootstrap_each() -> None:
    """Two segments give ``2 * (2 + 10) = 24``; a single one gives ``4 + 10 = 14``."""
    split = window(4, 2, segment_end=flags((0, 1, 0, 1), (0, 0, 0, 1)))
    assert window_objective(split, TEN, 1.0).tolist() == [24.0, 14.0]
    assert window_objective(window(4, 2), TEN, 1.0).tolist() == [14.0, 14.0]


def test_an_environment_that_stops_after_two_steps_still_has_its_bootstrap() -> None:
    """2 + 10 = 12 beside 14. Without an end before the steps that never happened it would be 2."""
    stopped = window(4, 2, valid=flags((1, 1, 0, 0), (1, 1, 1, 1)))
    assert window_objective(stopped, TEN, 1.0).tolist() == [12.0, 14.0]


def test_the_discount_restarts_with_each_segment() -> None:
    """Gamma 1/2: (1 + 1/2 + 10/4) twice is 8, beside 1.875 + 10/16 = 2.5; terminal: 1.5 + 4."""
    split = flags((0, 1, 0, 1), (0, 0, 0, 1))
    assert window_objective(window(4, 2, segment_end=split), TEN, 0.5).tolist() == [8.0, 2.5]
    over = window(4, 2, terminated=flags((0, 1, 0, 0), (0, 0, 0, 0)))
    assert window_objective(over, TEN, 0.5).tolist() == [1.5 + 4.0, 2.5]


def test_td_lambda_returns_are_cut_at_the_ends_of_segments() -> None:
    """Lambda 1, gamma 1: 2 + 10 and 1 + 10 in each segment of two steps, 4 + 10 and so on in one.

    With lambda 0 every step bootstraps, and the ends make no difference.
    """
    split = window(4, 2, segment_end=flags((0, 1, 0, 1), (0, 0, 0, 1)))
    whole = window(4, 2)
    expected = [[12.0, 11.0, 12.0, 11.0], [14.0, 13.0, 12.0, 11.0]]
    assert columns(window_returns(split, TEN, gamma=1, lambda_=1)) == expected
    assert columns(window_returns(whole, TEN, gamma=1, lambda_=1)) == [expected[1]] * 2
    for one in (split, whole):
        assert columns(window_returns(one, TEN, gamma=1, lambda_=0)) == [[11.0] * 4] * 2


def test_td_lambda_returns_of_an_environment_that_stops_early() -> None:
    """Its two valid steps return 12 and 11; the rewards of invalid steps do not count."""
    reward = torch.ones(4, 2)
    reward[2:, 0] = 777.0
    stopped = window(4, 2, valid=flags((1, 1, 0, 0), (1, 1, 1, 1)), reward=reward)
    found = window_returns(stopped, TEN, gamma=1, lambda_=1)
    assert columns(found)[0][:2] == [12.0, 11.0]
    assert columns(found)[1] == [14.0, 13.0, 12.0, 11.0]


def test_returns_do_not_change_the_flags_that_are_given() -> None:
    """The arguments ``terminated``, ``truncated`` and ``segment_end`` are not written to."""
    terminated, truncated, end = NO.clone(), NO.clone(), flags((0, 1, 0, 1), (0, 0, 0, 1))
    given = (terminated, truncated, end.clone())
    td_lambda_returns(
        torch.ones(4, 2), TEN, terminated, truncated, gamma=1, lambda_=1, segment_end=given[2]
    )
    assert not bool(terminated.any()) and not bool(truncated.any())
    assert torch.equal(given[2], end)


def test_the_score_weight_of_the_same_segments_sums_the_same_rewards() -> None:
    """The weight of a segment's first step, without a baseline, is the segment's objective."""
    split = window(4, 2, segment_end=flags((0, 1, 0, 1), (0, 0, 0, 1)))
    weight = matched_score_weight(split, TEN, torch.zeros(4, 2), 0.5)
    first = flags((1, 0, 1, 0), (1, 0, 0, 0))
    summed = torch.where(first, weight, 0.0).sum(0)
    torch.testing.assert_close(summed, window_objective(split, TEN, 0.5))


# Joined windows -----------------------------------------------------------------------------------


def test_joined_windows_follow_each_other_and_their_segments_run_on() -> None:
    """The end of a part is no end of a segment, unless an episode ended there."""
    parts = [
        window(2, 2, truncated=flags((0, 1), (0, 0))),
        window(1, 2, reward=torch.full((1, 2), 2.0)),
        window(2, 2, terminated=flags((0, 0), (1, 0))),
    ]
    joined = concatenate(parts)
    assert columns(joined.reward) == [[1, 1, 2, 1, 1]] * 2
    assert columns(joined.segment_end.int()) == [[0, 1, 0, 0, 1], [0, 0, 0, 1, 1]]
    assert columns(parts[0].segment_end.int()) == [[0, 1], [0, 1]]  # the parts keep theirs


def test_joined_parts_are_the_window_that_was_not_parted() -> None:
    """Every split of a window with ends of all kinds, some of them on the split."""
    generator = torch.Generator().manual_seed(0)
    terminated, truncated, never = torch.rand(3, 6, 40, generator=generator) < 0.2
    whole = window(6, 40, terminated=terminated, truncated=truncated, valid=~never)
    for at in range(1, 6):
        parts = [
            window(
                len(rows),
                40,
                terminated=terminated[rows],
                truncated=truncated[rows],
                valid=~never[rows],
            )
            for rows in (torch.arange(6)[:at], torch.arange(6)[at:])
        ]
        joined = concatenate(parts)
        for field in FIELDS:
            one, other = getattr(joined, field.name), getattr(whole, field.name)
            assert (one is None and other is None) or torch.equal(one, other), field.name


def test_an_end_that_an_agent_set_inside_a_part_is_kept() -> None:
    part = window(4, 1, segment_end=flags((0, 1, 0, 1)))
    assert columns(concatenate([part, part]).segment_end.int()) == [[0, 1, 0, 0, 0, 1, 0, 1]]


# First episodes -----------------------------------------------------------------------------------


def test_only_the_steps_up_to_the_first_end_stay_valid() -> None:
    """Ends after steps 1 and 3 of the first environment, none in the second, at once in the third.

    Steps after the first end are ends of segments, so that nothing of them is summed.
    """
    whole = window(
        4,
        3,
        terminated=flags((0, 1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0)),
        truncated=flags((0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0)),
    )
    found = first_episodes(whole)
    assert columns(found.valid.int()) == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert columns(found.segment_end.int()) == [[0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]
    value = torch.full((4, 3), 10.0)
    assert window_objective(found, value, 1.0).tolist() == [2.0, 14.0, 1.0]
    assert bool(whole.valid.all())


def test_a_step_that_never_happened_stays_so() -> None:
    found = first_episodes(window(3, 1, valid=flags((0, 1, 1)), terminated=flags((0, 1, 0))))
    assert columns(found.valid.int()) == [[0, 1, 0]]


# The window itself --------------------------------------------------------------------------------


def test_a_detached_window_has_the_same_numbers_and_no_graph() -> None:
    leaf = torch.ones(2, 3, requires_grad=True)
    made = window(2, 3, reward=2 * leaf, action_shift=torch.zeros(2, 3, 1, requires_grad=True))
    assert made.differentiable and (made.num_steps, made.num_envs) == (2, 3)
    plain = made.detach()
    assert not plain.differentiable and plain.action_shift is None
    assert not plain.reward.requires_grad and torch.equal(plain.reward, made.reward)
    assert made.reward.requires_grad


def test_an_episode_is_done_in_either_way() -> None:
    made = window(3, 1, terminated=flags((1, 0, 0)), truncated=flags((0, 1, 0)))
    assert columns(made.done.int()) == [[1, 1, 0]]


def test_a_window_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        window(1, 1).reward = torch.zeros(1, 1)  # type: ignore[misc]
