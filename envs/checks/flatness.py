"""Checks for places where a gradient is zero or does not exist although autograd is right.

Event and clipped rewards, actions without an effect, jumps, and actions beyond a clamp.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.adapters.simulation.central_differences import FAR_STEP
from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.jacobian import Block
from pgtoolkit.envs.checks.random_play import Points
from pgtoolkit.envs.checks.states import FlatState, copy_state
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo
from pgtoolkit.envs.states import State, leaves_of, map_state
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.seeding import stream

REWARD_SLOPE = Check("gradients", "reward slope")

FLAT_WARNING_SHARE, FLAT_FAULT_SHARE = 0.2, 0.5
"""Shares of states without a reward gradient that are a warning, and a fault if clipped."""

FLAT_MEANING = "the pathwise gradient of such a reward is zero, without any variance, and wrong"

NUM_HALVINGS = 34
"""Halvings of a segment: what changes over the last 6e-11 of its length is a jump."""

MAX_SATURATED_SHARE = 0.2
"""A larger share of actions without an effect is worth a warning."""

BOUND_MARGIN = 0.01
"""Share of an action's range that counts as near a bound."""

ACTION_STEP = 1e-4
"""Change of an action that must change the outcome."""


def check_reward_gradient(
    blocks: dict[str, Block],
    from_play: Tensor,
    reward: Tensor,
    more_rewards: Tensor,
    last: Tensor,
    claims: GradientInfo,
) -> Iterator[Finding]:
    """The reward has a nonzero gradient by state or action at most points of random play.

    Args:
        blocks: the Jacobians at ``N`` points, by name.
        from_play: ``[N]`` bool, the points of random play.
        reward: ``[N]`` at the points.
        more_rewards: rewards at other points, to see their range.
        last: ``[N]`` bool, whether the step ends an episode.
        claims: the environment's own statement about its gradient.
    """
    by_state, by_action = (x[from_play] for x in _reward_gradients(blocks))
    reward = reward[from_play]
    scale = max(float(by_state.abs().max()), float(by_action.abs().max()))
    tiny = 1e-6 * scale + 1e-9 * (1 + float(reward.abs().max()))
    flat_state, flat_action = ((x.abs() <= tiny).all(1) for x in (by_state, by_action))
    flat = flat_state & flat_action
    if bool(flat.all()):
        yield _flat_everywhere(torch.cat([reward, more_rewards]), claims)
    elif float(flat.double().mean()) >= FLAT_WARNING_SHARE:
        if bool((flat == ~last[from_play]).all()):
            yield REWARD_SLOPE.passed("only the last step of an episode is rewarded")
        else:
            yield _partly_flat(flat, reward, more_rewards, claims)
    elif bool(flat_state.all()) and _ignores_next_state(blocks, from_play):
        yield REWARD_SLOPE.warning(
            "the reward has a derivative by the action's own cost only; that by the state is zero "
            "everywhere",
            "event rewards have no pathwise gradient: what is left of it learns to do nothing",
            "add a reward that changes smoothly with the state, use reinforce, or a value function "
            "(shac)",
        )
    else:
        share = float((~flat).double().mean())
        yield REWARD_SLOPE.passed(f"the reward has a slope at {share:.0%} of states")


def _reward_gradients(blocks: dict[str, Block]) -> tuple[Tensor, Tensor]:
    """Total derivatives of the reward: ``[N, D]`` by the state and ``[N, A]`` by the action.

    Both include the way through the next state. They come from differences, which also have the
    parts that autograd loses.
    """
    by = {name: block.at.differences.nan_to_num(0, 0, 0) for name, block in blocks.items()}
    after = by["d reward / d next state"]
    state = by["d reward / d state"] + after @ by["d transition / d state"]
    action = by["d reward / d action"] + after @ by["d transition / d action"]
    return state[:, 0], action[:, 0]


def _ignores_next_state(blocks: dict[str, Block], from_play: Tensor) -> bool:
    slope = blocks["d reward / d next state"].at.differences[from_play]
    return float(slope.nan_to_num(0, 0, 0).abs().max()) < 1e-9


def _flat_everywhere(reward: Tensor, claims: GradientInfo) -> Finding:
    values = torch.unique(reward[reward.isfinite()])
    if float(values[-1] - values[0]) <= 1e-9 * (1 + float(values.abs().max())):
        return REWARD_SLOPE.warning(
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
        return _flat_fault(text)
    advice = "use reinforce, or a reward that changes smoothly"
    return REWARD_SLOPE.warning(f"{text}, as it says", FLAT_MEANING, advice)


def _partly_flat(
    flat: Tensor, reward: Tensor, more_rewards: Tensor, claims: GradientInfo
) -> Finding:
    """A fault if most flat rewards are at the end of their range, else a warning."""
    share = float(flat.double().mean())
    values, counts = torch.unique(reward[flat], return_counts=True)
    usual = float(values[counts.argmax()])
    clipped = usual in (float(more_rewards.min()), float(more_rewards.max())) and int(
        counts.max()
    ) > 0.8 * int(flat.sum())
    if clipped and share >= FLAT_FAULT_SHARE and claims.reward == "exact":
        return _flat_fault(
            f"flat: clipped or an event reward. At {share:.0%} of the states of random play the "
            f"reward is {usual:.3g}, its bound, and its gradient zero"
        )
    return REWARD_SLOPE.warning(
        f"partly flat: at {share:.0%} of the states of random play the reward has no gradient",
        "the pathwise gradient learns from the other states only",
        "fine for a reward at the end of an episode; else make it smooth",
    )


def _flat_fault(text: str) -> Finding:
    return REWARD_SLOPE.fault(
        text,
        FLAT_MEANING,
        "reward a smooth function (no clamp, sign, round or comparison), or say gradient = "
        "GradientInfo(reward='none') and use reinforce",
    )


@torch.no_grad()
def scaled_rewards(env: DifferentiableEnv, points: Points) -> Tensor:
    """``[4 N]`` rewards at the points with states and actions scaled by 0, 0.01, 0.1 and 0.3.

    A reward that is clipped at the points is often not clipped nearer to 0.
    """
    rewards = []
    for factor in (0.0, 0.01, 0.1, 0.3):
        state, after = _scaled(points.state, factor), _scaled(points.next_state, factor)
        rewards.append(env.reward(state, factor * points.action, after).double())
    return torch.cat(rewards)


def _scaled(state: State, factor: float) -> State:
    """A copy with the floating-point tensors multiplied by ``factor``."""
    copied = copy_state(state)
    return map_state(lambda leaf: leaf * factor if leaf.is_floating_point() else leaf, copied)


@torch.no_grad()
def check_effect_of_actions(
    env: DifferentiableEnv, points: Points, blocks: dict[str, Block], from_play: Tensor
) -> Iterator[Finding]:
    """Every dimension of the action changes the next state or the reward at some point.

    A dimension without a derivative is moved by :data:`FAR_STEP` too: where outcomes are rounded,
    or a simulator's state is opaque, only that shows its effect.
    """
    transition, reward = blocks["d transition / d action"], blocks["d reward / d action"]
    effect = torch.cat([transition.at.differences, reward.at.differences], 1)[from_play]
    largest = effect.nan_to_num(0, 0, 0).abs().amax((0, 1))
    flat = [i for i, x in enumerate(largest) if float(x) < 1e-9]
    idle = [i for i in flat if bool(_is_idle(env, points, points.action, i, FAR_STEP).all())]
    if idle:
        yield Check("gradients", "actions").warning(
            f"{', '.join(transition.inputs[i] for i in idle)} changes neither the next state nor "
            "the reward, at any point",
            "an action without an effect has no gradient, and adds variance to the score function",
            "leave it out, or see whether it is cut, rounded or clipped on its way",
        )


@torch.no_grad()
def check_jumps(env: DifferentiableEnv, points: Points) -> Iterator[Finding]:
    """Next state, reward and observation change continuously between pairs of points.

    Args:
        env: the dynamics.
        points: the first half is paired with the second.
    """
    half = len(points) // 2
    if half == 0:
        yield Check("gradients", "jumps").not_checked("fewer than two points")
        return
    state = FlatState(points.state, "state")
    x = torch.cat([state.pack(points.state), points.action.flatten(1)], 1)
    size = x.shape[1] - points.action.flatten(1).shape[1]
    rows = torch.arange(half)

    def step(x: Tensor) -> dict[str, Tensor]:
        noise = None if points.noise is None else points.noise[rows]
        before = state.unpack(x[:, :size].clone(), rows)
        action = x[:, size:].reshape(-1, *points.action.shape[1:]).clone()
        after = env.transition(before, action, noise)
        reward = env.reward(state.unpack(x[:, :size].clone(), rows), action, after)
        return {
            "next state": FlatState(after, "next_state").pack(after),
            "reward": reward.double()[:, None],
            "observation": env.observation(after).double(),
        }

    found = []
    for name in ("next state", "reward", "observation"):
        jump = largest_jump(lambda x, name=name: step(x)[name], x[:half], x[half : 2 * half])  # type: ignore[misc]
        if jump is not None:
            found.append(f"the {name} by {jump[0]:.3g} ({jump[1]} of {half} pairs)")
    check = Check("gradients", "jumps")
    if found:
        yield check.warning(
            f"jumps: {', '.join(found)}",
            "no derivative sees a jump, so the pathwise gradient is biased where it matters",
            _jump_advice(env.gradient),
        )
    else:
        yield check.passed(f"none between {half} pairs of visited places")


def _jump_advice(claims: GradientInfo) -> str:
    advice = "compare the estimators (pgtoolkit variance --env); mixed weighs them"
    if claims.contacts == "stiff" or "exact" not in (claims.reward, claims.state):
        return advice
    return f"{advice}; say so with GradientInfo(contacts='stiff')"


def largest_jump(
    function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor
) -> tuple[float, int] | None:
    """Looks for jumps of a function by bisection of ``N`` segments, towards the larger change.

    Args:
        function: ``[N, D]`` to ``[N, M]``.
        low: ``[N, D]`` where the segments begin.
        high: ``[N, D]`` where they end.

    Returns:
        The size of the largest jump and the number of segments with one; None without any.
    """
    first, last = function(low), function(high)
    std = torch.cat([first, last]).std(0)
    scale = (std + 1e-12).where(std > 1e-9, torch.inf)
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        value = function(middle)
        left = ((value - first) / scale).abs().amax(1) >= ((last - value) / scale).abs().amax(1)
        left = left[:, None]
        high, last = torch.where(left, middle, high), torch.where(left, value, last)
        low, first = torch.where(left, low, middle), torch.where(left, first, value)
    change = (last - first).abs()
    # An angle that changes by 2 pi is the same angle.
    full_turn = (change - 2 * torch.pi).abs() < 1e-6
    change = torch.where(full_turn, 0, change)
    jump = (change / scale) > 1e-3
    if not bool(jump.any()):
        return None
    return float(change[jump].max()), int(jump.any(1).sum())


@torch.no_grad()
def check_saturation(env: DifferentiableEnv, points: Points, seed: int) -> Iterator[Finding]:
    """Most actions of an untrained Gaussian policy have an effect.

    An action entry is saturated where moving it to either side changes neither next state nor
    reward, although it does elsewhere: it lies beyond a clamp.
    """
    check = Check("gradients", "saturation")
    policy = make_policy(
        PolicySettings(), env.observation_space, env.action_space, stream(seed, "policy weights")
    )
    obs = env.observation(copy_state(points.state)).float()
    noise = policy.draw_noise(len(obs), generator=stream(seed, "noise"))
    action = policy.pathwise_action(obs, noise).double()
    idle = torch.stack(
        [_is_idle(env, points, action, i, ACTION_STEP) for i in range(action.shape[1])], 1
    )
    works = ~idle.all(0)
    share = float(idle[:, works].double().mean()) if bool(works.any()) else 0.0
    text = f"{share:.0%} of the first policy's actions have no effect{_near_bounds(env, action)}"
    if share > MAX_SATURATED_SHARE:
        yield check.warning(
            f"saturated: {text}",
            "beyond a clamp the pathwise gradient is 0, and the score function sees noise",
            "make the action space as wide as the clamp; policies squash their actions into it",
        )
    else:
        yield check.passed(text)


def _near_bounds(env: DifferentiableEnv, action: Tensor) -> str:
    """The share of action entries near a bound, in words; empty where there are no bounds."""
    space = env.action_space
    if not space.is_bounded("both"):
        return ""
    low, high = torch.from_numpy(space.low).double(), torch.from_numpy(space.high).double()
    margin = BOUND_MARGIN * (high - low)
    near = (action > high - margin) | (action < low + margin)
    return f"; {float(near.double().mean()):.0%} lie within 1% of a bound"


def _is_idle(env: DifferentiableEnv, points: Points, action: Tensor, i: int, step: float) -> Tensor:
    """``[N]`` bool: moving entry ``i`` of the action by a step does not change the outcome."""
    before = _outcome(env, points, action)
    idle = torch.ones(len(action), dtype=torch.bool)
    for sign in (1, -1):
        moved = action.clone()
        moved[:, i] += sign * step
        idle &= (_outcome(env, points, moved) == before).all(1)
    return idle


def _outcome(env: DifferentiableEnv, points: Points, action: Tensor) -> Tensor:
    """``[N, K]`` every entry of the next state, then the reward; 0 for NaN."""
    after = env.transition(copy_state(points.state), action.clone(), points.noise)
    reward = env.reward(copy_state(points.state), action.clone(), after)
    # Integer tensors count too: a simulator's snapshot may be bytes.
    parts = [leaf.reshape(len(action), -1).double() for leaf in leaves_of(after)]
    return torch.cat([*parts, reward.double()[:, None]], 1).nan_to_num()
