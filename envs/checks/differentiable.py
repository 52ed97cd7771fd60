"""All checks of a differentiable environment, in the order in which they need each other."""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from pgtoolkit.envs.checks import (
    episodes,
    flatness,
    gradients,
    graph_cuts,
    horizon,
    interface,
    numbers,
    purity,
    rounding,
)
from pgtoolkit.envs.checks.finding import Check, Finding, Part, has_fault
from pgtoolkit.envs.checks.jacobian import (
    Block,
    observation_blocks,
    reward_blocks,
    transition_blocks,
    without_carriers,
)
from pgtoolkit.envs.checks.random_play import (
    RandomPlay,
    affordable_points,
    gradient_step_cost,
    random_play,
    steps_per_second,
)
from pgtoolkit.envs.checks.sample_points import SamplePoints, sample_points
from pgtoolkit.envs.checks.states import copy_state, leaf_names
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import leaves_of
from pgtoolkit.errors import RequestError

Progress = Callable[[str], None]
"""Called with the name of each stage."""

NamedChecks = list[tuple[str, Callable[[], Iterable[Finding]]]]

BLOCK_MAKERS: dict[str, Callable[[DifferentiableEnv, SamplePoints], list[Block]]] = {
    "d transition": transition_blocks,
    "d observation": observation_blocks,
    "d reward": reward_blocks,
}

NUM_BLOCKS = 6
"""Jacobian blocks of all functions together."""

DISTURBING_CHECKS = ("determinism", "seeding", "finite")
"""Checks whose faults make correct derivatives look wrong."""


def check_differentiable(
    env: DifferentiableEnv, *, seed: int, samples: int, seconds: float, progress: Progress
) -> list[Finding]:
    """All findings on a differentiable environment.

    Args:
        env: the dynamics.
        seed: seeds everything random.
        samples: points of random play at which derivatives are checked; fewer if steps are slow.
        seconds: about how long each of the longer checks may take.
        progress: called with the name of each stage.
    """
    progress("shapes")
    found, usable = _check_interface(env, seed)
    if not usable:
        return found
    if interface.refuses_double(env, seed):
        env = interface.Float32Env(env)
    progress("random play")
    speed, played = _play(env, seed, seconds)
    found += speed
    if played is None:
        return found
    refusal = _refuses_old_states(env, played)
    if refusal:
        found += Check("behaviour", "numbers").run(env, lambda: _check_numbers(env, played))
        return [*found, Check("gradients", "the rest").not_checked(refusal)]
    found += _check_behaviour(env, played, seed)
    progress("gradients")
    if has_fault(found, *DISTURBING_CHECKS):
        reason = "until numbers are finite and depend on inputs alone"
        return [*found, Check("gradients", "the rest").not_checked(reason)]
    found += Check("gradients", "d").run(
        env, lambda: _check_gradients(env, played, seed, samples, seconds)
    )
    progress("horizon")
    found += Check("horizon", "adjoint").run(env, lambda: _check_horizon(env, seed, seconds))
    return found


def _check_interface(env: DifferentiableEnv, seed: int) -> tuple[list[Finding], bool]:
    """Findings on spaces, outputs and state, and whether the other checks can run."""
    found = interface.SPACES.run(env, lambda: interface.check_attributes(env))
    if has_fault(found):
        return found, False
    found += Check("interface", "shapes").run(env, lambda: interface.check_outputs(env, seed))
    if has_fault(found, "shapes"):
        reason = "until the shapes are right"
        return [*found, Check("behaviour", "the rest").not_checked(reason)], False
    found += Check("interface", "state").run(env, lambda: interface.check_state(env, seed))
    return found, True


def _play(
    env: DifferentiableEnv, seed: int, seconds: float
) -> tuple[list[Finding], RandomPlay | None]:
    """A finding on the speed, and random play; a fault and None if the environment raises."""
    played: list[RandomPlay] = []

    def run() -> list[Finding]:
        speed = steps_per_second(env, seed)
        played.append(
            random_play(
                env,
                num_envs=32 if speed > 2000 else 8,
                num_steps=min(env.max_episode_steps + 1, 1000),
                seed=seed,
                seconds=seconds,
            )
        )
        text = f"about {speed:,.0f} steps/s without a gradient"
        return [Check("behaviour", "throughput").passed(text)]

    found = Check("behaviour", "random play").run(env, run)
    return found, played[0] if played else None


def _refuses_old_states(env: DifferentiableEnv, played: RandomPlay) -> str:
    """The message of an adapter that cannot step from an earlier state; empty if it can."""
    points = played.sample(8, 0)
    try:
        env.transition(copy_state(points.state), points.action.clone(), points.noise)
    except RequestError as error:
        return str(error)
    except Exception:  # the checks report other errors
        return ""
    return ""


def _check_behaviour(env: DifferentiableEnv, played: RandomPlay, seed: int) -> list[Finding]:
    points = played.sample(24, seed)
    checks: NamedChecks = [
        ("in place", lambda: purity.check_inputs_kept(env, points)),
        ("aliasing", lambda: purity.check_results_kept(env, points)),
        ("determinism", lambda: purity.check_functions(env, points)),
        ("seeding", lambda: episodes.check_seeding(env, played.starts, seed)),
        ("restart", lambda: episodes.check_restart(env, points, seed)),
        ("termination", lambda: episodes.check_termination(env, played)),
        ("numbers", lambda: _check_numbers(env, played)),
    ]
    return _run_all(env, "behaviour", checks)


def _run_all(env: DifferentiableEnv, part: Part, checks: NamedChecks) -> list[Finding]:
    return [f for name, check in checks for f in Check(part, name).run(env, check)]


@torch.no_grad()
def _check_numbers(env: DifferentiableEnv, played: RandomPlay) -> list[Finding]:
    first = env.observation(copy_state(played.starts)).double().numpy()
    seen = env.observation(copy_state(played.points.next_state)).double().numpy()
    reward = played.reward.double().numpy()
    # Rows that always push to one side show extremes: they are left out of the scale.
    num_steps, num_envs = reward.shape
    random = np.arange(num_envs) >= num_envs // 2
    usual = seen.reshape(num_steps, num_envs, -1)[:, random].reshape(-1, seen.shape[1])
    names, tensors = leaf_names(played.starts), leaves_of(played.starts)
    starts = {name: x.double().numpy() for name, x in zip(names, tensors, strict=True)}
    return [
        *numbers.check_start_states(starts),
        *numbers.check_finite(first, seen, reward.ravel()),
        *numbers.check_inside(env.observation_space, np.concatenate([first, seen])),
        *numbers.check_scale(usual, reward[:, random].ravel()),
    ]


def _check_gradients(
    env: DifferentiableEnv, played: RandomPlay, seed: int, samples: int, seconds: float
) -> list[Finding]:
    count = affordable_points(env, played, seed, samples, seconds)
    where = sample_points(env, played, count, seed)
    found, blocks = _check_blocks(env, where)
    found += gradients.check_precision(list(blocks.values()), env.gradient.method)
    if len(blocks) == NUM_BLOCKS:
        found += _check_slopes(env, played, where, blocks)
    some = played.sample(samples, seed)
    single = any(bool(block.at.single.any()) for block in blocks.values())
    checks: NamedChecks = [
        ("three steps", lambda: gradients.check_chain(env, seed)),
        ("detach", lambda: graph_cuts.check_detach(env, seed)),
        ("resets", lambda: graph_cuts.check_resets(env, seed)),
        ("rounding", lambda: rounding.check_rounded_outcomes(env, some, single=single)),
        ("jumps", lambda: flatness.check_jumps(env, played.sample(2 * samples, seed))),
        ("saturation", lambda: flatness.check_saturation(env, some, seed)),
    ]
    return found + _run_all(env, "gradients", checks)


def _check_blocks(
    env: DifferentiableEnv, where: SamplePoints
) -> tuple[list[Finding], dict[str, Block]]:
    """Findings on each Jacobian block, and the blocks by name; none of a function that raises."""
    found: list[Finding] = []
    blocks: dict[str, Block] = {}
    for name, make in BLOCK_MAKERS.items():

        def check(make: Callable[..., list[Block]] = make) -> Iterable[Finding]:
            made = make(env, where)
            if env.gradient.method != "autograd":
                made = [without_carriers(block) for block in made]
            blocks.update({block.name: block for block in made})
            for block in made:
                yield from gradients.check_block(block, where.group, env.gradient)

        found += Check("gradients", name).run(env, check)
    return found, blocks


def _check_slopes(
    env: DifferentiableEnv, played: RandomPlay, where: SamplePoints, blocks: dict[str, Block]
) -> list[Finding]:
    """Kinks, the reward's slope and the effect of actions, from the Jacobian blocks."""
    points, from_play = where.points, where.from_play
    state, after = copy_state(points.state), copy_state(points.next_state)
    reward = env.reward(state, points.action.clone(), after).detach().double()
    last = env.terminal(copy_state(points.next_state))
    nearer = flatness.scaled_rewards(env, points)
    more_rewards = torch.cat([played.reward.double().ravel(), nearer])
    return [
        *gradients.check_kinks(list(blocks.values()), from_play, env.gradient),
        *flatness.check_reward_gradient(
            blocks, from_play, reward, more_rewards, last, env.gradient
        ),
        *flatness.check_effect_of_actions(env, points.rows(from_play), blocks, from_play),
    ]


def _check_horizon(env: DifferentiableEnv, seed: int, seconds: float) -> list[Finding]:
    # Training is in float32.
    inner = env.env if isinstance(env, interface.Float32Env) else env
    cost = gradient_step_cost(env, seed)
    speed = steps_per_second(env, seed, horizon.NUM_TRAJECTORIES) / cost
    checks: NamedChecks = [
        ("adjoint", lambda: horizon.check_adjoint(env, seed)),
        (
            "variance",
            lambda: horizon.check_variance(inner, seed, steps_per_second=speed, seconds=seconds),
        ),
    ]
    return _run_all(env, "horizon", checks)
