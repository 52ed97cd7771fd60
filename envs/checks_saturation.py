"""Check of how much of what the first policy does is lost at bounds."""

from collections.abc import Iterator

import torch

from pgtoolkit.agent import AgentConfig
from pgtoolkit.envs.checks_play import AnyDifferentiable, Points, copy, leaves
from pgtoolkit.envs.finding import Finding, passed, warned
from pgtoolkit.policies import make_policy
from pgtoolkit.seeding import stream

NEAR, MANY, MOVE = 0.01, 0.2, 1e-4


@torch.no_grad()
def check_saturation(env: AnyDifferentiable, points: Points, seed: int) -> Iterator[Finding]:
    """Where the actions of the initial Gaussian policy lie, and where they have no effect.

    An action has none where moving it to either side changes neither next state nor reward, though
    elsewhere it does: beyond a clamp.
    """
    policy = make_policy(
        AgentConfig(), env.observation_space, env.action_space, stream(seed, "policy weights")
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
