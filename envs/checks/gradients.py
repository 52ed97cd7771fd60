"""Checks of derivatives by autograd against differences: of each function, and over three steps."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor

from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.jacobian import Block, Derivatives, derivatives
from pgtoolkit.envs.checks.random_play import draw_noise, random_actions
from pgtoolkit.envs.checks.sample_points import GROUPS
from pgtoolkit.envs.checks.states import (
    copy_state,
    entry_names,
    start_states,
    take_rows,
)
from pgtoolkit.envs.differentiable import DifferentiableEnv, GradientInfo, Quality

TOLERANCE, TOLERANCE_SINGLE = 1e-4, 5e-2
"""Relative error allowed in float64 and in float32."""

MAX_KINK_SHARE = 0.25
"""More points than this share at a kink are worth a warning."""

CHAIN_STEPS, CHAIN_ENVS = 3, 6


class Error(NamedTuple):
    """A kind of wrong derivative, its effect on training, and what to do."""

    kind: str
    meaning: str
    advice: str


CUT = Error(
    "cut: detached, or computed without the graph",
    "autograd says 0 where the function changes: that part of the gradient is lost without an "
    "error",
    "find .detach(), .item(), .data, torch.no_grad, torch.tensor(...) or NumPy in this function, "
    "or say so in the class attribute gradient = GradientInfo(...)",
)

WRONG_SIGN = Error(
    "wrong sign",
    "training moves against this part of the gradient instead of along it",
    "look for a minus in a custom backward, or in a surrogate for this function",
)

WRONG = Error(
    "wrong",
    "training follows a gradient that is not that of the function",
    "look for a custom backward, a part that is detached, or a surrogate (straight-through); if it "
    "is meant, say so: gradient = GradientInfo(..., 'approximate')",
)


@final
@dataclasses.dataclass(frozen=True)
class Comparison:
    """Autograd against differences, ``[N, M, D]`` bool each."""

    wrong: Tensor
    """The differences converge to another value than autograd's."""
    kink: Tensor
    """The differences do not converge, or differ on both sides; autograd cannot be refuted."""
    not_finite: Tensor
    """Autograd's value is NaN or infinite."""


def compare(at: Derivatives) -> Comparison:
    """Compares autograd with differences, entry by entry."""
    a, d = at.autograd, at.differences
    tolerance = torch.where(at.single, TOLERANCE_SINGLE, TOLERANCE)[None, :, None]
    largest = d.nan_to_num(0, 0, 0).abs().amax((0, 2), keepdim=True)
    allowed = tolerance * torch.maximum(a.abs(), d.abs()) + 1e-3 * tolerance * largest + at.noise
    off = (a - d).abs() > allowed
    # At a kink every value between the one-sided slopes is a valid derivative. The same test
    # accepts the error that a strong curvature makes in a difference.
    sides = torch.stack([at.forward, at.backward])
    between = (a >= sides.amin(0) - allowed) & (a <= sides.amax(0) + allowed)
    unsettled = at.unsettled > 0.1 * (a - d).abs()
    bent = (at.forward - at.backward).abs() > 0.2 * (a - d).abs()
    unsure = between | unsettled | bent | ~d.isfinite()
    finite = a.isfinite()
    uneven = (at.forward - at.backward).abs() > allowed + 0.05 * largest
    return Comparison(off & ~unsure & finite, (off & unsure | uneven) & finite, ~finite)


def check_block(block: Block, group: Tensor, claims: GradientInfo) -> Iterator[Finding]:
    """The finding on one function's derivative by one input: correct, wrong or not finite.

    Args:
        block: the derivatives at ``N`` points.
        group: ``[N]`` index into ``GROUPS``.
        claims: a wrong derivative is a fault only where these say that it is exact.
    """
    check = Check("gradients", block.name)
    comparison = compare(block.at)
    if bool(comparison.not_finite.any()):
        yield _not_finite(check, block, group, comparison.not_finite)
    elif bool(comparison.wrong.any()):
        yield _wrong(check, block, group, comparison.wrong, _claim(block, claims))
    else:
        yield check.passed(_agreement(block, comparison, group == 0))


def _claim(block: Block, claims: GradientInfo) -> Quality:
    """The quality that the environment claims for a block's derivatives.

    Three steps in a row have the weakest of the claims for reward, action and state.
    """
    if block.function == "three steps":
        qualities = {claims.reward, claims.action, claims.state}
        return next(q for q in ("none", "approximate", "exact") if q in qualities)
    if block.function == "reward":
        return claims.reward
    return claims.action if block.by == "action" else claims.state


def _agreement(block: Block, comparison: Comparison, from_play: Tensor) -> str:
    at = block.at
    settled = ~comparison.kink & at.differences.isfinite()
    error = torch.where(settled, (at.autograd - at.differences).abs(), 0).max()
    size = at.autograd.abs().max()
    if float(size) == 0:
        return f"zero at {at.autograd.shape[0]} points, by autograd and by differences"
    text = f"agrees with differences to {float(error / size):.0e} at {len(at.autograd)} points"
    kinks = int(comparison.kink[from_play].any(2).any(1).sum())
    return f"{text}; {kinks} of {int(from_play.sum())} random ones at a kink" if kinks else text


def _not_finite(check: Check, block: Block, group: Tensor, bad: Tensor) -> Finding:
    rows = bad.any(2).any(1)
    places = {GROUPS[int(g)] for g in group[rows]}
    n, m, d = torch.nonzero(bad)[0].tolist()
    value = float(block.at.autograd[n, m, d])
    return check.fault(
        f"NaN or infinite gradient at {' and '.join(sorted(places))}: d {block.outputs[m]} / d "
        f"{block.inputs[d]} is {value} ({int(rows.sum())} of {len(rows)} points)",
        "one such number makes the whole batch's gradient NaN, and the update is lost",
        "a square root, norm, acos or division at its singular point: add a small constant inside, "
        "or choose a safe input with torch.where before the function, not after it",
    )


def _wrong(check: Check, block: Block, group: Tensor, wrong: Tensor, claim: Quality) -> Finding:
    at = block.at
    gap = torch.where(wrong, (at.autograd - at.differences).abs(), 0)
    n, m, d = (int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
    a, c = float(at.autograd[n, m, d]), float(at.differences[n, m, d])
    points = wrong.any(2).any(1)
    error = _classify(at.autograd[wrong], at.differences[wrong])
    text = (
        f"{error.kind}: d {block.outputs[m]} / d {block.inputs[d]} is {a:.3g} by autograd and "
        f"{c:.3g} by differences at {GROUPS[int(group[n])]} ({int(points.sum())} of {len(points)} "
        "points)"
    )
    if claim == "exact":
        return check.fault(f"{text}; it claims to be exact", error.meaning, error.advice)
    if claim == "none":
        return check.passed(f"none, as the environment says ({text})")
    return check.warning(
        f"{text}; it claims to be approximate",
        error.meaning,
        "nothing, if it is meant; compare estimators with pgtoolkit variance --env",
    )


def _classify(autograd: Tensor, differences: Tensor) -> Error:
    """The kind of error, by the ratios of autograd's wrong values to the differences."""
    if bool((autograd == 0).all()):
        return CUT
    ratio = autograd / torch.where(differences == 0, torch.inf, differences)
    middle = float(ratio.median())
    constant = float((ratio - middle).abs().median()) < 1e-3 * abs(middle)
    if constant and abs(middle + 1) < 0.05:
        return WRONG_SIGN
    if constant and middle != 0:
        return WRONG._replace(kind=f"wrong by a factor of {middle:.3g}")
    return WRONG


def check_kinks(blocks: list[Block], from_play: Tensor, claims: GradientInfo) -> Iterator[Finding]:
    """The share of points of random play ``[N]`` at which differences do not converge."""
    kinks = {block.name: compare(block.at).kink[from_play] for block in blocks}
    shares = {name: float(kink.any(2).any(1).double().mean()) for name, kink in kinks.items()}
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] > MAX_KINK_SHARE:
        say_so = "" if claims.contacts == "stiff" else "; or say gradient.contacts = 'stiff'"
        yield Check("gradients", "kinks").warning(
            f"{worst} is not settled at {shares[worst]:.0%} of the points: differences at two step "
            "sizes, or on both sides, disagree",
            "the function bends or jumps faster than differences resolve: stiff contacts, clamps, "
            "or noise in the function",
            "expect a large variance of pathwise gradients; smooth contacts, short windows"
            f"{say_so}",
        )


def check_precision(blocks: list[Block], method: str) -> Iterator[Finding]:
    """Whether a function rounds to float32 although its inputs are float64."""
    check = Check("interface", "dtype")
    names = sorted({b.function for b in blocks if bool(b.at.single.any())})
    if not names:
        return
    text = f"float32 inside: {' and '.join(names)} is rounded to float32 for a state of float64"
    meaning = "long gradients lose their digits, and differences can only be compared roughly"
    if method == "autograd":
        advice = "no .float() on the way; constants by state.new_tensor(...)"
        yield check.fault(text, meaning, advice)
    else:
        yield check.warning(text, meaning, "nothing, if the simulator is like that")


def check_chain(env: DifferentiableEnv, seed: int) -> Iterator[Finding]:
    """The sum of three rewards and the last observation, by the first action.

    Only actions are moved, so this also checks simulators whose states are opaque snapshots.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = start_states(env, CHAIN_ENVS, generator)
    # Off the bounds, where a clamp has two derivatives.
    actions = [
        0.9 * random_actions(env.action_space, CHAIN_ENVS, generator) for _ in range(CHAIN_STEPS)
    ]
    noises = [draw_noise(env, CHAIN_ENVS, generator) for _ in range(CHAIN_STEPS)]

    def outcome(first: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[K, 1 + O]``, and ``[K]`` whether the episode ended on the way."""
        state, rewards = copy_state(take_rows(starts, rows)), []
        ended = torch.zeros(len(rows), dtype=torch.bool)
        for step, (usual, noise) in enumerate(zip(actions, noises, strict=True)):
            action = first if step == 0 else usual[rows]
            after = env.transition(state, action, None if noise is None else noise[rows])
            rewards.append(env.reward(state, action, after))
            ended |= env.terminal(after)
            state = after
        total = torch.stack(rewards, 1).sum(1, True)
        return torch.cat([total, env.observation(state)], 1), ended

    alive = ~outcome(actions[0], torch.arange(CHAIN_ENVS))[1]
    if not bool(alive.any()) or env.max_episode_steps < CHAIN_STEPS:
        check = Check("gradients", "three steps")
        yield check.not_checked("episodes end within three steps")
        return
    kept = torch.nonzero(alive)[:, 0]
    x = actions[0][kept]
    scale = torch.ones(x.shape[1]).double()
    at = derivatives(lambda v, rows: outcome(v, kept[rows])[0], x, scale)
    outputs = ["sum of rewards", *entry_names("observation", (at.autograd.shape[1] - 1,))]
    inputs = entry_names("first action", (x.shape[1],))
    block = Block("three steps", "first action", outputs, inputs, at)
    yield from check_block(block, torch.zeros(len(kept), dtype=torch.int64), env.gradient)
