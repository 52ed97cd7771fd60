"""How much memory a run needs at the least, and how much there is.

The estimates are lower bounds: what is refused cannot fit, and what is not refused may still not.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pgtoolkit.errors import SettingError

FLOAT_BYTES = 4

PYTHON_ENV_BYTES = 4_000
"""Bytes of an environment that is a Python object, at the least. By resident memory, CartPole-v1 in
this package's wrappers takes 4.4 kB and InvertedPendulum-v5 570 kB."""

STEP_FLOATS = 6
"""Numbers of a window's step beside observations and actions: reward, density and flags."""

ADAM_COPIES = 4
"""Parameters, gradient and Adam's two moments."""

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says how much memory the processes of a container may use."""


def require_memory(needs: Mapping[str, float], available: float, advice: str) -> None:
    """Raises unless everything fits into memory together.

    Args:
        needs: what takes memory, in words, to its bytes.
        available: bytes.
        advice: what to make smaller, such as ``--num-envs or --n-steps``.

    Raises:
        RequestError: says how many gigabytes are needed, for what most of all, and how many there
            are.
    """
    total = sum(needs.values())
    if total > available:
        largest = max(needs, key=needs.__getitem__)
        share = gigabytes(needs[largest])
        raise SettingError(
            f"this needs at least {gigabytes(total)} of memory, {share} of them "
            f"for {largest}, and there are {gigabytes(available)}: make {advice} smaller"
        )


def gigabytes(size: float) -> str:
    """``12.3 GB`` of a number of bytes; whole ones from 100."""
    number = size / 1e9
    return f"{number:,.0f} GB" if number >= 100 else f"{number:.2g} GB"


def window_bytes(num_steps: int, num_envs: int, obs_size: int, action_size: int) -> float:
    """Observations before and after each step, noise, action and its pre-image, and flags."""
    floats = 2 * obs_size + 3 * action_size + STEP_FLOATS
    return float(FLOAT_BYTES) * num_steps * num_envs * floats


def replay_bytes(obs_size: int, action_size: int, obs_bytes: int) -> int:
    """One transition of a replay buffer: two observations, action, reward, and whether it ended.

    Args:
        obs_size: entries of an observation.
        action_size: entries of an action.
        obs_bytes: bytes of an entry of an observation.
    """
    return 2 * obs_size * obs_bytes + FLOAT_BYTES * (action_size + 1) + 1


def network_bytes(sizes: Sequence[int]) -> float:
    """A multi-layer perceptron of these layer sizes with its gradient and Adam's moments."""
    weights = sum(a * b + b for a, b in itertools.pairwise(sizes))
    return float(FLOAT_BYTES) * ADAM_COPIES * weights


def gradients_bytes(num_trajectories: int, num_estimators: int, sizes: Sequence[int]) -> float:
    """The gradient of every trajectory by several estimators, of a policy of these layer sizes."""
    return network_bytes(sizes) / ADAM_COPIES * num_trajectories * num_estimators


def batch_bytes(num_envs: int, obs_size: int, action_size: int) -> float:
    """A batch of environments on tensors: the bounds of its spaces, observations and actions."""
    return 3.0 * FLOAT_BYTES * num_envs * (obs_size + action_size)


def available_memory() -> float:
    """Bytes of memory that this process may use, by the machine, its container and its limit."""
    limits = [float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES"), _address_space()]
    for file in CGROUP_LIMITS:
        try:
            limits.append(float(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # no such file, or no limit: "max"
            continue
    return min(limits)


def _address_space() -> float:
    """The limit of ``ulimit -v``; infinite where there is none, or no such thing."""
    try:
        import resource
    except ImportError:
        return float("inf")
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)
