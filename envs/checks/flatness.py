"""Checks for what has no gradient although nothing is wrong with it: events, clips, no effect."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.checks.finding import Finding, fault, passed, warned
from pgtoolkit.envs.checks.jacobian import Flat
from pgtoolkit.envs.checks.random_play import AnyDifferentiable, Points, copy, leaves
from pgtoolkit.envs.checks.sample_points import Block
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.envs.states import map_state
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.seeding import stream


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

HALVINGS = 34
"""The rest of the way is 6e-11 of the whole: what still changes there is a jump."""


@torch.no_grad()
def check_jumps(env: AnyDifferentiable, points: Points) -> Iterator[Finding]:
    """Does a step's outcome jump anywhere between the places that were visited?"""
    half = len(points) // 2
    if half == 0:
        return
    state = Flat(points.state, "state")
    x = torch.cat([state.pack(points.state), points.action.flatten(1)], 1)
    size = x.shape[1] - points.action.flatten(1).shape[1]
    rows = torch.arange(half)

    def step(x: Tensor) -> list[Tensor]:
        noise = None if points.noise is None else points.noise[rows]
        before = state.unpack(x[:, :size].clone(), rows)
        action = x[:, size:].reshape(-1, *points.action.shape[1:]).clone()
        after = env.transition(before, action, noise)
        reward = env.reward(state.unpack(x[:, :size].clone(), rows), action, after)
        moved = Flat(after, "next_state").pack(after)
        return [moved, reward.double()[:, None], env.observation(after).double()]

    found = []
    for output, name in enumerate(("next state", "reward", "observation")):
        text = largest_jump(lambda x, k=output: step(x)[k], x[:half], x[half : 2 * half])  # type: ignore[misc]
        if text is not None:
            found.append((name, *text))
    if not found:
        yield passed("gradients", "jumps", f"none between {half} pairs of visited places")
        return
    yield _jumps(found, half, env.gradient)


def _jumps(found: list[tuple[str, float, int]], count: int, claims: GradientInfo) -> Finding:
    text = ", ".join(f"the {n} by {j:.3g} ({k} of {count} ways)" for n, j, k in found)
    honest = claims.contacts == "stiff" or "exact" not in (claims.reward, claims.state)
    advice = "compare the estimators (pgtoolkit variance --env); mixed weighs them"
    if not honest:
        advice += "; say so with GradientInfo(contacts='stiff')"
    return warned(
        "gradients",
        "jumps",
        f"jumps: {text}",
        "no derivative sees a jump, so the pathwise gradient is biased where it matters",
        advice,
    )


def largest_jump(
    function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> tuple[float, int] | None:
    """The size of the largest jump, and on how many ways there is one; None without any.

    Args:
        function: ``[N, D]`` to ``[N, M]``.
        low: ``[N, D]`` where the ways begin.
        high: where they end.
    """
    first, last = function(low), function(high)
    scale = (torch.cat([first, last]).std(0) + 1e-12).where(
        torch.cat([first, last]).std(0) > 1e-9, torch.inf
    )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        value = function(middle)
        left = ((value - first) / scale).abs().amax(1) >= ((last - value) / scale).abs().amax(1)
        high, last = _choose(left, middle, high), _choose(left, value, last)
        low, first = _choose(left, low, middle), _choose(left, first, value)
    change = (last - first).abs()
    # The turn of an angle, which is the same angle.
    turn = (change - 2 * torch.pi).abs() < 1e-6
    change = torch.where(turn, 0, change)
    jump = (change / scale) > 1e-3
    if not bool(jump.any()):
        return None
    return float(change[jump].max()), int(jump.any(1).sum())


def _choose(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask[:, None], a, b)


NEAR, MANY, MOVE = 0.01, 0.2, 1e-4


@torch.no_grad()
def check_saturation(env: AnyDifferentiable, points: Points, seed: int) -> Iterator[Finding]:
    """Where the actions of the initial Gaussian policy lie, and where they have no effect.

    An action has none where moving it to either side changes neither next state nor reward, though
    elsewhere it does: beyond a clamp.
    """
    policy = make_policy(
        PolicySettings(), env.observation_space, env.action_space, stream(seed, "policy weights")
    )
    obs = env.observation(copy(points.state)).float()
    noise = policy.draw_noise(len(obs), generator=stream(seed, "noise"))
    action = policy.pathwise_action(obs, noise).double()
    dead = torch.stack([_idle(env, points, action, i) for i in range(action.shape[1])], 1)
    works = ~dead.all(0)
    share = float(dead[:, works].double().mean()) if bool(works.any()) else 0.0
    text = f"{share:.0%} of the first policy's actions have no effect{_near(env, action)}"
    if share > MANY:
        yield warned(
            "gradients",
            "saturation",
            f"saturated: {text}",
            "beyond a clamp the pathwise gradient is 0, and the score function sees noise",
            "make the action space as wide as the clamp; policies squash their actions into it",
        )
    else:
        yield passed("gradients", "saturation", text)


def _near(env: AnyDifferentiable, action: torch.Tensor) -> str:
    space = env.action_space
    if not space.is_bounded("both"):
        return ""
    low, high = torch.from_numpy(space.low).double(), torch.from_numpy(space.high).double()
    margin = NEAR * (high - low)
    near = (action > high - margin) | (action < low + margin)
    return f"; {float(near.double().mean()):.0%} lie within 1% of a bound"


def _idle(env: AnyDifferentiable, points: Points, action: torch.Tensor, i: int) -> torch.Tensor:
    """``[N]`` whether the outcome stays the same when this entry moves."""
    before = _outcome(env, points, action)
    idle = torch.ones(len(action), dtype=torch.bool)
    for sign in (1, -1):
        moved = action.clone()
        moved[:, i] += sign * MOVE
        idle &= (_outcome(env, points, moved) == before).all(1)
    return idle


def _outcome(env: AnyDifferentiable, points: Points, action: torch.Tensor) -> torch.Tensor:
    after = env.transition(copy(points.state), action.clone(), points.noise)
    reward = env.reward(copy(points.state), action.clone(), after)
    # As numbers of any kind: a simulator's snapshot is whole numbers.
    parts = [leaf.reshape(len(action), -1).double() for leaf in leaves(after)]
    return torch.cat([*parts, reward.double()[:, None]], 1).nan_to_num()
