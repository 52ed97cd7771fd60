"""Checks of a differentiable environment's derivatives against differences, block by block."""

import dataclasses
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Finding, fault, passed, warned
from pgtoolkit.envs.checks.jacobian import Derivatives, derivatives
from pgtoolkit.envs.checks.random_play import (
    AnyDifferentiable,
    copy,
    draw_noise,
    fresh,
    random_actions,
    take,
)
from pgtoolkit.envs.checks.sample_points import GROUPS, Block
from pgtoolkit.envs.differentiable import GradientInfo, Quality
from pgtoolkit.envs.vector import DifferentiableVectorEnv

TOLERANCE, TOLERANCE_SINGLE = 1e-4, 5e-2
"""Relative, in float64 and in float32."""


@final
@dataclasses.dataclass(frozen=True)
class Verdicts:
    """``[N, M, D]`` bool each."""

    wrong: Tensor
    """The differences settle on another value than autograd's."""
    kink: Tensor
    """They do not settle, and say nothing; autograd's value may be as good as any."""
    not_finite: Tensor
    """Autograd's value is NaN or infinite."""


def compare(at: Derivatives) -> Verdicts:
    """Autograd against differences, entry by entry."""
    a, d = at.autograd, at.differences
    tolerance = torch.where(at.single, TOLERANCE_SINGLE, TOLERANCE)[None, :, None]
    largest = d.nan_to_num(0, 0, 0).abs().amax((0, 2), keepdim=True)
    allowed = tolerance * torch.maximum(a.abs(), d.abs()) + 1e-3 * tolerance * largest + at.noise
    off = (a - d).abs() > allowed
    # At a kink every value between the one-sided slopes is a derivative as good as any. The same
    # comparison lets pass what a strong curvature does to a difference.
    sides = torch.stack([at.forward, at.backward])
    between = (a >= sides.amin(0) - allowed) & (a <= sides.amax(0) + allowed)
    jumpy = at.unsettled > 0.1 * (a - d).abs()
    bent = (at.forward - at.backward).abs() > 0.2 * (a - d).abs()
    unsure = between | jumpy | bent | ~d.isfinite()
    finite = a.isfinite()
    uneven = (at.forward - at.backward).abs() > allowed + 0.05 * largest
    return Verdicts(off & ~unsure & finite, (off & unsure | uneven) & finite, ~finite)


def check_block(block: Block, group: Tensor, claims: GradientInfo) -> Iterator[Finding]:
    """One function by one input: right, wrong (and how), or not finite."""
    verdicts = compare(block.at)
    claim = _claim(block, claims)
    if bool(verdicts.not_finite.any()):
        yield _not_finite(block, group, verdicts.not_finite)
    elif bool(verdicts.wrong.any()):
        yield _wrong(block, group, verdicts.wrong, claim)
    else:
        yield passed("gradients", block.name, _agreement(block, verdicts, group == 0))


def _claim(block: Block, claims: GradientInfo) -> Quality:
    """What the environment says of this block."""
    if block.function == "three steps":
        qualities = {claims.reward, claims.action, claims.state}
        return next(q for q in ("none", "approximate", "exact") if q in qualities)
    if block.function == "reward":
        return claims.reward
    return claims.action if block.by == "action" else claims.state


def _agreement(block: Block, verdicts: Verdicts, chosen: Tensor) -> str:
    at = block.at
    settled = ~verdicts.kink & at.differences.isfinite()
    error = torch.where(settled, (at.autograd - at.differences).abs(), 0).max()
    size = at.autograd.abs().max()
    if float(size) == 0:
        return f"zero at {at.autograd.shape[0]} points, by autograd and by differences"
    text = f"agrees with differences to {float(error / size):.0e} at {len(at.autograd)} points"
    kinks = int(verdicts.kink[chosen].any(2).any(1).sum())
    return f"{text}; {kinks} of {int(chosen.sum())} random ones at a kink" if kinks else text


def _not_finite(block: Block, group: Tensor, bad: Tensor) -> Finding:
    rows = bad.any(2).any(1)
    places = {GROUPS[int(g)] for g in group[rows]}
    n, m, d = torch.nonzero(bad)[0].tolist()
    value = float(block.at.autograd[n, m, d])
    return fault(
        "gradients",
        block.name,
        f"NaN or infinite gradient at {' and '.join(sorted(places))}: d {block.outputs[m]} / d "
        f"{block.inputs[d]} is {value} ({int(rows.sum())} of {len(rows)} points)",
        "one such number makes the whole batch's gradient NaN, and the update is lost",
        "a square root, norm, acos or division at its singular point: add a small constant inside, "
        "or choose a safe input with torch.where before the function, not after it",
    )


def _wrong(block: Block, group: Tensor, wrong: Tensor, claim: Quality) -> Finding:
    at = block.at
    gap = torch.where(wrong, (at.autograd - at.differences).abs(), 0)
    n, m, d = (int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    a, c = float(at.autograd[n, m, d]), float(at.differences[n, m, d])
    points = wrong.any(2).any(1)
    kind, meaning, advice = _kind(at.autograd[wrong], at.differences[wrong])
    text = (
        f"{kind}: d {block.outputs[m]} / d {block.inputs[d]} is {a:.3g} by autograd and {c:.3g} by "
        f"differences at {GROUPS[int(group[n])]} ({int(points.sum())} of {len(points)} points)"
    )
    if claim == "exact":
        return fault("gradients", block.name, f"{text}; it claims to be exact", meaning, advice)
    if claim == "none":
        return passed("gradients", block.name, f"none, as the environment says ({text})")
    return warned("gradients", block.name, f"{text}; it claims to be approximate", meaning, HONEST)


def _kind(autograd: Tensor, differences: Tensor) -> tuple[str, str, str]:
    """What is wrong, what that does, and what to do."""
    if bool((autograd == 0).all()):
        return CUT
    ratio = autograd / torch.where(differences == 0, torch.inf, differences)
    middle = float(ratio.median())
    alike = float((ratio - middle).abs().median()) < 1e-3 * abs(middle)
    if alike and abs(middle + 1) < 0.05:
        return WRONG_SIGN
    if alike and middle != 0:
        return f"wrong by a factor of {middle:.3g}", *OTHERWISE[1:]
    return OTHERWISE


def check_kinks(blocks: list[Block], chosen: Tensor, claims: GradientInfo) -> Iterator[Finding]:
    """How many of the chosen places ``[N]`` have no derivative that differences agree on."""
    kinks = {block.name: compare(block.at).kink[chosen] for block in blocks}
    shares = {name: float(kink.any(2).any(1).double().mean()) for name, kink in kinks.items()}
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] > KINKS:
        known = "" if claims.contacts == "stiff" else "; or say gradient.contacts = 'stiff'"
        yield warned(
            "gradients",
            "kinks",
            f"{worst} is not settled at {shares[worst]:.0%} of the points: differences at two step "
            "sizes, or on both sides, disagree",
            "the function bends or jumps faster than differences resolve: stiff contacts, clamps, "
            "or noise in the function",
            f"expect a large variance of pathwise gradients; smooth contacts, short windows{known}",
        )


KINKS = 0.25

CUT = (
    "cut: detached, or computed without the graph",
    "autograd says 0 where the function changes: that part of the gradient is lost in silence",
    "find .detach(), .item(), .data, torch.no_grad, torch.tensor(...) or NumPy in this function, "
    "or say so in the class attribute gradient = GradientInfo(...)",
)

WRONG_SIGN = (
    "wrong sign",
    "training climbs down where it should climb up",
    "look for a minus in a custom backward, or in a surrogate for this function",
)

OTHERWISE = (
    "wrong",
    "training follows a gradient that is not that of the function",
    "look for a custom backward, a part that is detached, or a surrogate (straight-through); if it "
    "is meant, say so: gradient = GradientInfo(..., 'approximate')",
)

HONEST = "nothing, if it is meant; compare estimators with pgtoolkit variance --env"

STEPS, ROWS = 3, 6


def check_chain(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """Rewards and last observation of three steps, by their first action.

    Whatever a state is made of, actions can be moved; so this holds for simulators as well, whose
    states are snapshots.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = fresh(env, ROWS, generator)
    # Off the bounds, where a clamp has two derivatives.
    actions = [0.9 * random_actions(env.action_space, ROWS, generator) for _ in range(STEPS)]
    noises = [draw_noise(env, ROWS, generator) for _ in range(STEPS)]

    def steps(first: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        state, paid = copy(take(starts, rows)), []
        ended = torch.zeros(len(rows), dtype=torch.bool)
        for number, (usual, drawn) in enumerate(zip(actions, noises, strict=True)):
            action = first if number == 0 else usual[rows]
            after = env.transition(state, action, None if drawn is None else drawn[rows])
            paid.append(env.reward(state, action, after))
            ended |= env.terminal(after)
            state = after
        return torch.cat([torch.stack(paid, 1).sum(1, True), env.observation(state)], 1), ended

    alive = ~steps(actions[0], torch.arange(ROWS))[1]
    if not bool(alive.any()) or env.max_episode_steps < STEPS:
        yield passed("gradients", "three steps", "not checked: episodes end within three steps")
        return
    kept = torch.nonzero(alive)[:, 0]
    x = actions[0][kept]
    at = derivatives(lambda v, rows: steps(v, kept[rows])[0], x, torch.ones(x.shape[1]).double())
    seen = [f"observation[{i}]" for i in range(at.autograd.shape[1] - 1)]
    inputs = [f"first action[{i}]" for i in range(x.shape[1])]
    block = Block("three steps", "first action", ["sum of rewards", *seen], inputs, at)
    yield from check_block(block, torch.zeros(len(kept), dtype=torch.int64), env.gradient)


STEPS, ROWS = 3, 6


def check_cut(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """``DifferentiableVectorEnv.detach`` leaves nothing of the past."""
    vector, actions = _started(env, seed)
    for action in actions[:-1]:
        vector.step(action)
    vector.detach()
    # An autograd node that a step before the cut left behind shows in the next outputs.
    obs, reward, *_ = vector.step(actions[-1].detach())
    leaking = [n for n, x in (("observation", obs), ("reward", reward)) if x.requires_grad]
    found = _gradients(obs.sum() + reward.sum(), actions[:-1])
    if any(bool((g != 0).any()) for g in found):
        yield fault(
            "gradients",
            "detach",
            f"the graph is not cut by detach(): {' and '.join(leaking)} still depends on actions "
            "before it",
            "the graph grows from window to window until the memory is full, or backward fails on "
            "a graph that is gone",
            "keep nothing on the environment: what a step needs of the past belongs into the state",
        )
    else:
        yield passed("gradients", "detach", "detach() cuts the graph")


def check_survivors(env: AnyDifferentiable, seed: int) -> Iterator[Finding]:
    """A reset cuts the rows that it resets, and no other."""
    mask = torch.arange(ROWS) % 2 == 0
    plain = _reward_gradient(env, seed, None)
    reset = _reward_gradient(env, seed, mask)
    if plain is None or reset is None:
        yield passed("gradients", "resets", "not checked: episodes end within three steps")
        return
    if not torch.allclose(plain[:, ~mask], reset[:, ~mask], rtol=1e-6, atol=1e-12):
        yield fault(
            "gradients",
            "resets",
            "environments that go on lose or change their gradient when others are reset",
            "every end of an episode cuts gradients of the whole batch",
            "in reset_where, choose row by row with where_state(mask, fresh, state): no detach()",
        )
    elif bool((reset[:, mask] != 0).any()):
        yield fault(
            "gradients",
            "resets",
            "an environment that was reset still has a gradient to actions before the reset",
            "credit flows from one episode into another",
            "draw fresh states from initial, without a graph",
        )
    else:
        yield passed("gradients", "resets", "a reset cuts its own row; the others keep theirs")


def _started(env: AnyDifferentiable, seed: int) -> tuple[DifferentiableVectorEnv, list[Tensor]]:
    """Environments after a reset, and actions that want gradients."""
    vector = DifferentiableVectorEnv(env, ROWS, dtype=torch.float64)
    vector.reset(seed=seed)
    vector.detach()
    generator = torch.Generator().manual_seed(seed)
    # Off the bounds, where a clamp has two derivatives.
    actions = [0.9 * random_actions(env.action_space, ROWS, generator) for _ in range(STEPS)]
    return vector, [a.requires_grad_() for a in actions]


def _reward_gradient(env: AnyDifferentiable, seed: int, mask: Tensor | None) -> Tensor | None:
    """``[2, N, A]`` of the last step by the first two actions, with a reset before it."""
    vector, actions = _started(env, seed)
    for action in actions[:2]:
        _, _, terminated, truncated, _ = vector.step(action)
        if bool((terminated | truncated).any()):
            return None
    if mask is not None:
        vector.reset(options={"reset_mask": mask})
    obs, reward, terminated, truncated, _ = vector.step(actions[2])
    if bool((terminated | truncated).any()):
        return None
    return torch.stack(_gradients(obs.sum() + reward.sum(), actions[:2]))


def _gradients(total: Tensor, actions: list[Tensor]) -> list[Tensor]:
    if not total.requires_grad:
        return [torch.zeros_like(a) for a in actions]
    found = torch.autograd.grad(total, actions, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for g, a in zip(found, actions, strict=True)]
