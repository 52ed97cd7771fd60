"""Checks of a differentiable environment's derivatives against differences, block by block."""

import dataclasses
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from pgtoolkit.envs.checks_jacobian import Derivatives
from pgtoolkit.envs.checks_places import GROUPS, Block
from pgtoolkit.envs.differentiable import GradientInfo, Quality
from pgtoolkit.envs.finding import Finding, fault, passed, warned

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
