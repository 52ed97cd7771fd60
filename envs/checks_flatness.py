"""Checks for what has no gradient although nothing is wrong with it: events, clips, no effect."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pgtoolkit.envs.checks_places import Block
from pgtoolkit.envs.checks_play import AnyDifferentiable, Points, copy
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.envs.finding import Finding, fault, passed, warned
from pgtoolkit.envs.states import map_state


def total_reward_derivative(blocks: dict[str, Block]) -> tuple[Tensor, Tensor]:
    """``[N, D]`` by the state and ``[N, A]`` by the action, through the next state as well.

    By differences, so that what autograd loses is not missing here.
    """
    by = {name: block.at.differences.nan_to_num(0, 0, 0) for name, block in blocks.items()}
    after = by["d reward / d next state"]
    state = by["d reward / d state"] + after @ by["d transition / d state"]
    action = by["d reward / d action"] + after @ by["d transition / d action"]
    return state[:, 0], action[:, 0]


def check_reward_gradient(
    blocks: dict[str, Block],
    chosen: Tensor,
    reward: Tensor,
    everywhere: Tensor,
    last: Tensor,
    claims: GradientInfo,
) -> Iterator[Finding]:
    """Is there a slope for the pathwise gradient to follow?

    Args:
        blocks: by name.
        chosen: ``[N]`` bool, the points reached in play.
        reward: ``[N]`` there.
        everywhere: rewards at more places, without derivatives.
        last: ``[N]`` bool, whether the step ends an episode.
        claims: what the environment says.
    """
    by_state, by_action = (x[chosen] for x in total_reward_derivative(blocks))
    reward = reward[chosen]
    scale = max(float(by_state.abs().max()), float(by_action.abs().max()))
    tiny = 1e-6 * scale + 1e-9 * (1 + float(reward.abs().max()))
    flat_state, flat_action = ((x.abs() <= tiny).all(1) for x in (by_state, by_action))
    flat = flat_state & flat_action
    if bool(flat.all()):
        yield _flat_everywhere(torch.cat([reward, everywhere]), claims)
    elif float(flat.double().mean()) >= PARTLY:
        if bool((flat == ~last[chosen]).all()):
            yield passed("gradients", "reward slope", "the last step of an episode alone pays")
        else:
            yield _partly_flat(flat, reward, everywhere, claims)
    elif bool(flat_state.all()) and _pays_nothing(blocks, chosen):
        yield warned(
            "gradients",
            "reward slope",
            "the reward has a derivative by the action's own cost only; that by the state is zero "
            "everywhere",
            "event rewards have no pathwise gradient: what is left of it learns to do nothing",
            "add a reward that changes smoothly with the state, use reinforce, or a value function "
            "(shac)",
        )
    else:
        share = float((~flat).double().mean())
        yield passed(
            "gradients", "reward slope", f"the reward has a slope at {share:.0%} of states"
        )


def _pays_nothing(blocks: dict[str, Block], chosen: Tensor) -> bool:
    """Whether where an action leads makes no difference to the reward."""
    slope = blocks["d reward / d next state"].at.differences[chosen]
    return float(slope.nan_to_num(0, 0, 0).abs().max()) < 1e-9


def _flat_everywhere(reward: Tensor, claims: GradientInfo) -> Finding:
    values = torch.unique(reward[reward.isfinite()])
    if float(values[-1] - values[0]) <= 1e-9 * (1 + float(values.abs().max())):
        return warned(
            "gradients",
            "reward slope",
            "event rewards have no pathwise gradient: the reward is "
            f"{float(reward[0]):.4g} at every step of random play, and its gradient zero",
            "the pathwise gradient of the return is exactly 0 (if the reward is clipped, all of it "
            "is); ending an episode earlier or later is an event that no derivative sees",
            "use reinforce, a smooth reward, or a value function that brings a gradient in (shac)",
        )
    text = (
        f"flat: clipped or an event reward. It is from {float(values[0]) + 0.0:.3g} to "
        f"{float(values[-1]) + 0.0:.3g}, and its gradient is zero wherever it was taken"
    )
    if claims.reward == "exact":
        return fault("gradients", "reward slope", text, FLAT, UNCLIP)
    return warned("gradients", "reward slope", f"{text}, as it says", FLAT, HONEST_FLAT)


def _partly_flat(flat: Tensor, reward: Tensor, everywhere: Tensor, claims: GradientInfo) -> Finding:
    share = float(flat.double().mean())
    values, counts = torch.unique(reward[flat], return_counts=True)
    usual = float(values[counts.argmax()])
    clipped = usual in (float(everywhere.min()), float(everywhere.max())) and int(
        counts.max()
    ) > 0.8 * int(flat.sum())
    if clipped and share >= MOSTLY and claims.reward == "exact":
        return fault(
            "gradients",
            "reward slope",
            f"flat: clipped or an event reward. At {share:.0%} of the states of random play the "
            f"reward is {usual:.3g}, its bound, and its gradient zero",
            FLAT,
            UNCLIP,
        )
    return warned(
        "gradients",
        "reward slope",
        f"partly flat: at {share:.0%} of the states of random play the reward has no gradient",
        "only the other states teach the pathwise gradient anything",
        "fine for a reward at the end of an episode; else make it smooth",
    )


@torch.no_grad()
def rewards_nearer(env: AnyDifferentiable, points: Points) -> Tensor:
    """Rewards on the way from visited places to 0, where many are not clipped."""
    found = []
    for share in (0.0, 0.01, 0.1, 0.3):
        state, after = (
            map_state(lambda x, s=share: x * s if x.is_floating_point() else x, copy(whole))
            for whole in (points.state, points.next_state)
        )
        found.append(env.reward(state, share * points.action, after).double())
    return torch.cat(found)


def check_effect_of_actions(blocks: dict[str, Block], chosen: Tensor) -> Iterator[Finding]:
    """Every dimension of the action should do something somewhere."""
    moves = blocks["d transition / d action"]
    pays = blocks["d reward / d action"]
    effect = torch.cat([moves.at.differences, pays.at.differences], 1)[chosen]
    idle = [
        name
        for i, name in enumerate(moves.inputs)
        if float(effect[:, :, i].nan_to_num(0, 0, 0).abs().max()) < 1e-9
    ]
    if idle:
        yield warned(
            "gradients",
            "actions",
            f"{', '.join(idle)} changes neither the next state nor the reward, at any point",
            "an action without an effect has no gradient, and adds variance to the score function",
            "leave it out, or see whether it is cut, rounded or clipped on its way",
        )


PARTLY, MOSTLY = 0.2, 0.5
FLAT = "the pathwise gradient of such a reward is zero, without any variance, and wrong"
UNCLIP = (
    "reward a smooth function (no clamp, sign, round or comparison), or say gradient = "
    "GradientInfo(reward='none') and use reinforce"
)
HONEST_FLAT = "use reinforce, or a reward that changes smoothly"
