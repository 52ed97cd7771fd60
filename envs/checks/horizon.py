"""How far a pathwise gradient carries: growth of the adjoint, and variance against horizon."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.checks.finding import Finding, passed, warned
from pgtoolkit.envs.checks.jacobian import Flat
from pgtoolkit.envs.checks.random_play import AnyDifferentiable, draw_noise, fresh, random_actions
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.horizon_study import Measurement, measure_horizon
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.seeding import stream

HORIZONS = (1, 2, 4, 8, 16, 32, 64)

TRAJECTORIES, GAMMA = 200, 0.99

LONG = 64


def check_adjoint(
    env: AnyDifferentiable, seed: int, *, steps: int = LONG, rows: int = 16
) -> Iterator[Finding]:
    """The norm of ``v' d s_T / d s_t`` against ``T - t``, for a random direction ``v``.

    Its growth per step is a Lyapunov-like rate: what happened ``k`` steps ago weighs ``rate^k``.
    """
    if env.gradient.state == "none":
        yield passed("horizon", "adjoint", "none: the environment says that the state has none")
        return
    norms = adjoint_norms(env, seed, min(steps, env.max_episode_steps), rows)
    if norms is None:
        yield passed("horizon", "adjoint", "not measured: random play ends before four steps")
        return
    typical = norms.median(1).values
    length = len(typical) - 1
    if not bool(torch.isfinite(typical).all()) or float(typical[0]) > BEYOND:
        yield _explodes(math.inf, length)
        return
    if float(typical[0]) == 0:
        yield passed("horizon", "adjoint", f"dies within {length} steps of random play")
        return
    rate = float((typical[0] / typical[-1]) ** (1 / length))
    if rate**LONG > 1e3:
        yield _explodes(rate, length)
    else:
        yield passed(
            "horizon",
            "adjoint",
            f"times {rate:.3g} a step over {length} steps of random play",
        )


def _explodes(rate: float, length: int) -> Finding:
    far = int(math.log(1e3) / math.log(rate)) if math.isfinite(rate) else 1
    return warned(
        "horizon",
        "adjoint",
        f"grows by {rate:.3g} a step over {length} steps of random play: times 1000 after "
        f"{max(far, 1)} steps",
        "the dynamics are chaotic or unstable: pathwise variance grows as the square of that",
        "windows (n_steps) shorter than that, with a value function beyond (shac), or mixed",
    )


def adjoint_norms(env: AnyDifferentiable, seed: int, steps: int, rows: int) -> Tensor | None:
    """``[T + 1, N]``; None if fewer than four steps can be made."""
    generator = torch.Generator().manual_seed(seed)
    state = fresh(env, rows, generator)
    flat = Flat(state, "state")
    if not flat.names():
        return None
    alive = torch.ones(rows, dtype=torch.bool)
    everywhere = torch.arange(rows)
    passed_by = [flat.pack(state).requires_grad_()]
    for _ in range(steps):
        action = random_actions(env.action_space, rows, generator)
        noise = draw_noise(env, rows, generator)
        before = flat.unpack(passed_by[-1], everywhere)
        after = env.transition(before, action, noise)
        over = env.terminal(after)
        if int((alive & ~over).sum()) < 4:
            break
        alive = alive & ~over
        flat = Flat(after, "state")
        # Who ended goes on from a copy without a graph, and is left out below.
        passed_by.append(flat.pack(after))
    if len(passed_by) < 5:
        return None
    last = passed_by[-1]
    if not last.requires_grad:
        return torch.zeros(len(passed_by), rows, dtype=torch.float64)
    direction = torch.randn(last.shape, generator=generator, dtype=last.dtype)
    direction = direction / direction.norm(dim=1, keepdim=True)
    gradients = torch.autograd.grad(last, passed_by, direction * alive[:, None], allow_unused=True)
    norms = [torch.zeros(rows).double() if g is None else g.norm(dim=1) for g in gradients]
    return torch.stack(norms)[:, alive]


def check_variance(
    env: AnyDifferentiable, seed: int, *, steps_per_second: float, seconds: float
) -> Iterator[Finding]:
    """The horizon up to which pathwise has less variance than the score function."""
    if env.gradient.action == "none":
        yield passed("horizon", "variance", "not measured: no gradient by the action, as it says")
        return
    rows: list[tuple[Measurement, Measurement]] = []
    vector = DifferentiableVectorEnv(env, TRAJECTORIES)
    policy = make_policy(
        PolicySettings(normalize_observations=False, log_std_init=-1.0),
        env.observation_space,
        env.action_space,
        stream(seed, "policy weights"),
    )
    for horizon in sorted({min(h, env.max_episode_steps) for h in HORIZONS}):
        cost = horizon * TRAJECTORIES / steps_per_second
        if cost > seconds:
            break
        seconds -= cost
        try:
            score, pathwise = measure_horizon(
                vector,
                policy,
                horizon,
                trajectories=TRAJECTORIES,
                estimators=("score_function", "pathwise"),
                gamma=GAMMA,
                seed=seed,
            )
        except NonFiniteError as error:
            yield warned("horizon", "variance", f"at {horizon} steps: {error}", LOST, SHORTER)
            return
        rows.append((score, pathwise))
    yield _usable(rows)


def _usable(rows: list[tuple[Measurement, Measurement]]) -> Finding:
    if not rows:
        return passed("horizon", "variance", "not measured: a step takes too long")
    longest = rows[-1][0].horizon
    if all(pathwise.variance == 0 for _, pathwise in rows):
        return passed("horizon", "variance", "pathwise is zero: see the reward's slope")
    for score, pathwise in rows:
        if not pathwise.variance <= score.variance:
            return _crossed(score, pathwise, [s.horizon for s, _ in rows])
    score, pathwise = rows[-1]
    return passed(
        "horizon",
        "variance",
        f"usable horizon at least {longest}, the longest measured: pathwise "
        f"{pathwise.variance:.2g}, score function {score.variance:.2g} there",
    )


def _crossed(score: Measurement, pathwise: Measurement, horizons: list[int]) -> Finding:
    usable = [h for h in horizons if h < score.horizon]
    text = f"up to {usable[-1]} steps" if usable else "none"
    value = "not finite" if math.isnan(pathwise.variance) else f"{pathwise.variance:.2g}"
    return warned(
        "horizon",
        "variance",
        f"usable horizon: {text}. At {score.horizon} pathwise has variance {value}, the score "
        f"function {score.variance:.2g} (a fresh policy, {TRAJECTORIES} trajectories)",
        "beyond it the score function is the better estimator",
        "n_steps up to there, or mixed; measure your policy with pgtoolkit variance RUN",
    )


BEYOND = 1e12

LOST = "what is not finite stops a run"

SHORTER = "find where it becomes so; limit speeds and forces"
