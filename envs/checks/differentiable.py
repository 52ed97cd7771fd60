"""All checks of a differentiable environment, in order; later ones need what earlier ones grant."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pgtoolkit.envs.checks import episodes as starts
from pgtoolkit.envs.checks import gradients as graph
from pgtoolkit.envs.checks import horizon, numbers, purity
from pgtoolkit.envs.checks import interface as contract
from pgtoolkit.envs.checks import interface as outputs
from pgtoolkit.envs.checks.episodes import check_ends
from pgtoolkit.envs.checks.finding import Finding, fault, guarded, has_fault, passed, warned
from pgtoolkit.envs.checks.flatness import (
    check_effect_of_actions,
    check_jumps,
    check_reward_gradient,
    check_saturation,
    rewards_nearer,
)
from pgtoolkit.envs.checks.gradients import check_block, check_chain, check_kinks
from pgtoolkit.envs.checks.interface import InSingle
from pgtoolkit.envs.checks.random_play import (
    AnyDifferentiable,
    Play,
    affordable,
    backward_cost,
    copy,
    leaf_names,
    leaves,
    play,
    rows_per_second,
)
from pgtoolkit.envs.checks.sample_points import (
    Block,
    Places,
    observation_blocks,
    places,
    reward_blocks,
    transition_blocks,
    without_carriers,
)
from pgtoolkit.errors import RequestError

Progress = Callable[[str], None]


def check_differentiable(
    env: AnyDifferentiable, *, seed: int, samples: int, seconds: float, progress: Progress
) -> list[Finding]:
    """What is right and wrong with it.

    Args:
        env: the dynamics.
        seed: of everything random.
        samples: places of random play at which derivatives are looked at, fewer for slow ones.
        seconds: about how long each of the longer checks may take.
        progress: told what is being looked at.
    """
    progress("shapes")
    found = guarded(env, "interface", "spaces", lambda: contract.check_attributes(env))
    if has_fault(found):
        return found
    found += guarded(env, "interface", "shapes", lambda: outputs.check_returns(env, seed))
    if has_fault(found, "shapes"):
        return [*found, passed("behaviour", "the rest", "not checked until this is mended")]
    found += guarded(env, "interface", "state", lambda: contract.check_state(env, seed))
    if outputs.refuses_double(env, seed):
        env = InSingle(env)
    progress("random play")
    played: list[Play] = []
    found += guarded(env, "behaviour", "random play", lambda: _play(env, seed, seconds, played))
    if not played:
        return found
    refusal = refuses_old_states(env, played[0])
    if refusal:
        found += guarded(env, "behaviour", "numbers", lambda: _numbers(env, played[0]))
        return [*found, passed("gradients", "the rest", f"not checked: {refusal}")]
    found += _behaviour(env, played[0], seed)
    progress("gradients")
    if has_fault(found, *CONFUSING):
        reason = "not checked until numbers are finite and depend on inputs alone"
        return [*found, passed("gradients", "the rest", reason)]
    found += guarded(
        env, "gradients", "d", lambda: _gradients(env, played[0], seed, samples, seconds)
    )
    progress("horizon")
    return [*found, *guarded(env, "horizon", "adjoint", lambda: _horizon(env, seed, seconds))]


def refuses_old_states(env: AnyDifferentiable, played: Play) -> str:
    """What an adapter says that only goes forward, and so cannot be asked twice; else nothing."""
    points = played.sample(8, 0)
    try:
        env.transition(copy(points.state), points.action.clone(), points.noise)
    except RequestError as error:
        return str(error)
    except Exception:  # the other checks tell
        return ""
    return ""


def _play(env: AnyDifferentiable, seed: int, seconds: float, into: list[Play]) -> list[Finding]:
    speed = rows_per_second(env, seed)
    rows = 32 if speed > 2000 else 8
    into.append(
        play(
            env,
            num_envs=rows,
            num_steps=min(env.max_episode_steps + 1, 1000),
            seed=seed,
            seconds=seconds,
        )
    )
    return [passed("behaviour", "throughput", f"about {speed:,.0f} steps/s without a gradient")]


def _behaviour(env: AnyDifferentiable, played: Play, seed: int) -> list[Finding]:
    points = played.sample(24, seed)
    looks: list[tuple[str, Callable[[], Any]]] = [
        ("in place", lambda: purity.check_inputs_kept(env, points)),
        ("aliasing", lambda: purity.check_results_kept(env, points)),
        ("determinism", lambda: purity.check_functions(env, points)),
        ("seeding", lambda: starts.check_seeding(env, played.starts, seed)),
        ("restart", lambda: starts.check_restart(env, points, seed)),
        ("termination", lambda: check_ends(env, played)),
        ("numbers", lambda: _numbers(env, played)),
    ]
    return [f for name, look in looks for f in guarded(env, "behaviour", name, look)]


@torch.no_grad()
def _numbers(env: AnyDifferentiable, played: Play) -> list[Finding]:
    first = env.observation(copy(played.starts)).double().numpy()
    seen = env.observation(copy(played.points.next_state)).double().numpy()
    # The rows that always push to one side show extremes, not sizes.
    steps, rows = played.reward.shape
    free = np.arange(rows) >= rows // 2
    usual = seen.reshape(steps, rows, -1)[:, free].reshape(-1, seen.shape[1])
    reward = played.reward.double().numpy()
    state = played.starts
    kept = {n: x.double().numpy() for n, x in zip(leaf_names(state), leaves(state), strict=True)}
    return [
        *numbers.check_start_states(kept),
        *numbers.check_finite(first, seen, reward.ravel()),
        *numbers.check_inside(env.observation_space, np.concatenate([first, seen])),
        *numbers.check_scale(usual, reward[:, free].ravel()),
    ]


def _gradients(
    env: AnyDifferentiable, played: Play, seed: int, samples: int, seconds: float
) -> list[Finding]:
    at = places(env, played, affordable(env, played, seed, samples, seconds), seed)
    blocks: dict[str, Block] = {}
    found: list[Finding] = []
    makers: list[tuple[str, Callable[[AnyDifferentiable, Places], list[Block]]]] = [
        ("d transition", transition_blocks),
        ("d observation", observation_blocks),
        ("d reward", reward_blocks),
    ]
    for name, make in makers:
        found += guarded(env, "gradients", name, lambda make=make: _blocks(env, at, make, blocks))  # type: ignore[misc]
    found += precision(list(blocks.values()), env.gradient.method)
    if len(blocks) == ALL_BLOCKS:
        found += _slopes(env, played, at, blocks)
    looks: list[tuple[str, Callable[[], Any]]] = [
        ("three steps", lambda: check_chain(env, seed)),
        ("detach", lambda: graph.check_cut(env, seed)),
        ("resets", lambda: graph.check_survivors(env, seed)),
        ("jumps", lambda: check_jumps(env, played.sample(2 * samples, seed))),
        ("saturation", lambda: check_saturation(env, played.sample(samples, seed), seed)),
    ]
    return found + [f for name, look in looks for f in guarded(env, "gradients", name, look)]


def _blocks(
    env: AnyDifferentiable,
    at: Places,
    make: Callable[[AnyDifferentiable, Places], list[Block]],
    into: dict[str, Block],
) -> list[Finding]:
    found = make(env, at)
    if env.gradient.method != "autograd":
        found = [without_carriers(block) for block in found]
    into.update({block.name: block for block in found})
    return [f for block in found for f in check_block(block, at.group, env.gradient)]


def precision(blocks: list[Block], method: str) -> list[Finding]:
    """Whether something is computed in float32 although float64 was given."""
    names = sorted({b.function for b in blocks if bool(b.at.single.any())})
    if not names:
        return []
    text = f"float32 inside: {' and '.join(names)} is rounded to float32 for a state of float64"
    meaning = "long gradients lose their digits, and differences can only be compared roughly"
    if method != "autograd":
        return [
            warned("interface", "dtype", text, meaning, "nothing, if the simulator is like that")
        ]
    advice = "no .float() on the way; constants by state.new_tensor(...)"
    return [fault("interface", "dtype", text, meaning, advice)]


def _slopes(
    env: AnyDifferentiable, played: Play, at: Places, blocks: dict[str, Block]
) -> list[Finding]:
    points = at.points
    chosen = at.group == 0
    reward = env.reward(copy(points.state), points.action.clone(), copy(points.next_state)).detach()
    last = env.terminal(copy(points.next_state))
    everywhere = torch.cat([played.reward.double().ravel(), rewards_nearer(env, points)])
    return [
        *check_kinks(list(blocks.values()), chosen, env.gradient),
        *check_reward_gradient(blocks, chosen, reward.double(), everywhere, last, env.gradient),
        *check_effect_of_actions(blocks, chosen),
    ]


def _horizon(env: AnyDifferentiable, seed: int, seconds: float) -> list[Finding]:
    inner = env.env if isinstance(env, InSingle) else env  # training is in float32
    speed = rows_per_second(env, seed, horizon.TRAJECTORIES) / backward_cost(env, seed)
    return [
        *guarded(env, "horizon", "adjoint", lambda: horizon.check_adjoint(env, seed)),
        *guarded(
            env,
            "horizon",
            "variance",
            lambda: horizon.check_variance(inner, seed, steps_per_second=speed, seconds=seconds),
        ),
    ]


ALL_BLOCKS = 6

CONFUSING = ("determinism", "seeding", "finite")
"""Faults that make derivatives look wrong which are not."""
