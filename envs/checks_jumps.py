"""Search for jumps: between two places of random play, halve the way to the larger change."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pgtoolkit.envs.checks_jacobian import Flat
from pgtoolkit.envs.checks_play import AnyDifferentiable, Points
from pgtoolkit.envs.differentiable import GradientInfo
from pgtoolkit.envs.finding import Finding, passed, warned

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
