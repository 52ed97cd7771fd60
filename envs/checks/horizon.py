"""Checks over many steps: growth of the adjoint, and gradient variance against the horizon."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pgtoolkit.config import PolicySettings
from pgtoolkit.envs.checks.finding import Check, Finding
from pgtoolkit.envs.checks.random_play import draw_noise, random_actions
from pgtoolkit.envs.checks.states import FlatState, start_states
from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.horizon_study import Measurement, measure_horizon
from pgtoolkit.policies.factory import make_policy
from pgtoolkit.seeding import stream

ADJOINT, VARIANCE = Check("horizon", "adjoint"), Check("horizon", "variance")

ADJOINT_STEPS = 64

MAX_ADJOINT_GROWTH = 1e3
"""A larger growth of the adjoint over :data:`ADJOINT_STEPS` is worth a warning."""

MAX_ADJOINT_NORM = 1e12
"""A larger norm counts as infinite."""

MIN_PLAYED_STEPS, MIN_ALIVE_ENVS = 4, 4

HORIZONS = (1, 2, 4, 8, 16, 32, 64)
"""Horizons at which the variances of the estimators are compared."""

NUM_TRAJECTORIES, GAMMA = 200, 0.99


def check_adjoint(
    env: DifferentiableEnv, seed: int, *, steps: int = ADJOINT_STEPS, num_envs: int = 16
) -> Iterator[Finding]:
    """The growth rate of ``|v' d s_T / d s_t|`` with ``T - t``, for a random unit vector ``v``.

    With a rate ``r`` per step, the gradient of what happened ``k`` steps ago is ``r^k`` as large.
    """
    if env.gradient.state == "none":
        yield ADJOINT.not_checked("no gradient by the state, as the environment says")
        return
    norms = adjoint_norms(env, seed, min(steps, env.max_episode_steps), num_envs)
    if norms is None:
        yield ADJOINT.not_checked("random play ends before four steps")
        return
    typical = norms.median(1).values
    length = len(typical) - 1
    if not bool(torch.isfinite(typical).all()) or float(typical[0]) > MAX_ADJOINT_NORM:
        yield _unstable(math.inf, length)
        return
    if float(typical[0]) == 0:
        yield ADJOINT.passed(f"vanishes within {length} steps of random play")
        return
    rate = float((typical[0] / typical[-1]) ** (1 / length))
    if rate**ADJOINT_STEPS > MAX_ADJOINT_GROWTH:
        yield _unstable(rate, length)
    else:
        yield ADJOINT.passed(f"times {rate:.3g} a step over {length} steps of random play")


def _unstable(rate: float, length: int) -> Finding:
    steps = int(math.log(MAX_ADJOINT_GROWTH) / math.log(rate)) if math.isfinite(rate) else 1
    return ADJOINT.warning(
        f"grows by {rate:.3g} a step over {length} steps of random play: times 1000 after "
        f"{max(steps, 1)} steps",
        "the dynamics are chaotic or unstable: pathwise variance grows as the square of that",
        "windows (n_steps) shorter than that, with a value function beyond (shac), or mixed",
    )


def adjoint_norms(env: DifferentiableEnv, seed: int, steps: int, num_envs: int) -> Tensor | None:
    """``[T + 1, N]`` norms of ``v' d s_T / d s_t`` for ``t = 0..T``, under random actions.

    ``T`` is ``steps``, or fewer if fewer than four episodes would last longer; ``N`` counts the
    episodes that last ``T`` steps.

    Returns:
        None if ``T < 4``, or if the state has no floating-point entries.
    """
    generator = torch.Generator().manual_seed(seed)
    states, alive = _flat_states(env, generator, steps, num_envs)
    last = states[-1]
    if len(states) <= MIN_PLAYED_STEPS or last.shape[1] == 0:
        return None
    if not last.requires_grad:
        return torch.zeros(len(states), num_envs, dtype=torch.float64)
    direction = torch.randn(last.shape, generator=generator, dtype=last.dtype)
    direction = direction / direction.norm(dim=1, keepdim=True)
    gradients = torch.autograd.grad(last, states, direction * alive[:, None], allow_unused=True)
    norms = [torch.zeros(num_envs).double() if g is None else g.norm(dim=1) for g in gradients]
    return torch.stack(norms)[:, alive]


def _flat_states(
    env: DifferentiableEnv, generator: torch.Generator, steps: int, num_envs: int
) -> tuple[list[Tensor], Tensor]:
    """The states ``[N, D]`` of random play with their graph, and which episodes ``[N]`` last.

    Stops before the step after which fewer than four episodes would go on.
    """
    flat = FlatState(start_states(env, num_envs, generator), "state")
    alive = torch.ones(num_envs, dtype=torch.bool)
    rows = torch.arange(num_envs)
    states = [flat.pack(flat.template).requires_grad_()]
    for _ in range(steps):
        action = random_actions(env.action_space, num_envs, generator)
        noise = draw_noise(env, num_envs, generator)
        after = env.transition(flat.unpack(states[-1], rows), action, noise)
        still_alive = alive & ~env.terminal(after)
        if int(still_alive.sum()) < MIN_ALIVE_ENVS:
            break
        # An episode that ended is stepped on like the others; the caller leaves it out.
        alive = still_alive
        flat = FlatState(after, "state")
        states.append(flat.pack(after))
    return states, alive


def check_variance(
    env: DifferentiableEnv, seed: int, *, steps_per_second: float, seconds: float
) -> Iterator[Finding]:
    """The horizon up to which pathwise has no more variance than the score function.

    Args:
        env: the dynamics.
        seed: seeds policy and trajectories.
        steps_per_second: speed with policy and backward pass; horizons too long for the time left
            are not measured.
        seconds: time for all horizons together.
    """
    if env.gradient.action == "none":
        yield VARIANCE.not_checked("no gradient by the action, as the environment says")
        return
    measured: list[tuple[Measurement, Measurement]] = []
    vector = DifferentiableVectorEnv(env, NUM_TRAJECTORIES)
    settings = PolicySettings(normalize_observations=False, log_std_init=-1.0)
    weights = stream(seed, "policy weights")
    policy = make_policy(settings, env.observation_space, env.action_space, weights)
    for horizon in sorted({min(h, env.max_episode_steps) for h in HORIZONS}):
        cost = horizon * NUM_TRAJECTORIES / steps_per_second
        if cost > seconds:
            break
        seconds -= cost
        try:
            score, pathwise = measure_horizon(
                vector,
                policy,
                horizon,
                trajectories=NUM_TRAJECTORIES,
                estimators=("score_function", "pathwise"),
                gamma=GAMMA,
                seed=seed,
            )
        except NonFiniteError as error:
            yield VARIANCE.warning(
                f"at {horizon} steps: {error}",
                "a number that is not finite stops a run",
                "find where it becomes so; limit speeds and forces",
            )
            return
        measured.append((score, pathwise))
    yield _usable_horizon(measured)


def _usable_horizon(measured: list[tuple[Measurement, Measurement]]) -> Finding:
    """Compares (score function, pathwise) at each horizon."""
    if not measured:
        return VARIANCE.not_checked("a step takes too long for the time allowed (--seconds)")
    if all(pathwise.variance == 0 for _, pathwise in measured):
        return VARIANCE.not_checked("the pathwise gradient is zero: see the reward's slope")
    for score, pathwise in measured:
        if not pathwise.variance <= score.variance:
            return _limited_horizon(score, pathwise, [s.horizon for s, _ in measured])
    score, pathwise = measured[-1]
    return VARIANCE.passed(
        f"usable horizon at least {score.horizon}, the longest measured: pathwise "
        f"{pathwise.variance:.2g}, score function {score.variance:.2g} there",
    )


def _limited_horizon(score: Measurement, pathwise: Measurement, horizons: list[int]) -> Finding:
    """The finding where pathwise has more variance, or is not finite, at ``score.horizon``."""
    usable = [h for h in horizons if h < score.horizon]
    text = f"up to {usable[-1]} steps" if usable else "none"
    value = "not finite" if math.isnan(pathwise.variance) else f"{pathwise.variance:.2g}"
    return VARIANCE.warning(
        f"usable horizon: {text}. At {score.horizon} pathwise has variance {value}, the score "
        f"function {score.variance:.2g} (a fresh policy, {NUM_TRAJECTORIES} trajectories)",
        "beyond it the score function varied less, in one measurement without an interval; a mix "
        "of both may vary less than either",
        "n_steps up to there, or mixed; measure your policy with pgtoolkit variance RUN",
    )
