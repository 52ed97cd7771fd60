"""Whether a command's windows, environments, networks and evaluations can be in memory at all."""

import math
from collections.abc import Mapping
from typing import Any

from gymnasium.spaces import Box, Space

from pgtoolkit.envs.measurement.gradient_probe import has_probe
from pgtoolkit.memory import (
    FLOAT_BYTES,
    PYTHON_ENV_BYTES,
    available_memory,
    batch_bytes,
    gradients_bytes,
    network_bytes,
    require_memory,
    window_bytes,
)
from pgtoolkit.scripts.cli.environments import Environments

STUDY_COPIES, STUDY_COPIES_MIXED = 5, 12
"""Gradients of a trajectory that a study of variances has in memory at a time, at the least. By
resident memory 5.7 with the score function, 6.8 with pathwise too, and 13 where they are mixed,
for which both are needed in float64."""


def require_training_memory(environments: Environments, config: Any, eval_episodes: int) -> None:
    """Raises unless a run with an agent's settings can be in memory.

    Args:
        environments: nothing has been made of them yet.
        config: the agent's settings.
        eval_episodes: episodes of an evaluation.

    Raises:
        RequestError: it cannot; names the flags.
    """
    num_envs, n_steps = config.num_envs, config.n_steps
    obs_size, action_size = sizes_of(environments)
    needs = {
        f"a window (--num-envs {num_envs}, --n-steps {n_steps})": window_bytes(
            n_steps, num_envs, obs_size, action_size
        ),
        f"the environments (--num-envs {num_envs})": env_bytes(environments, num_envs),
        "the networks (--hidden)": network_bytes([obs_size, *config.hidden, action_size]),
        f"an evaluation (--eval-episodes {eval_episodes})": evaluation_bytes(
            environments, eval_episodes
        ),
    }
    if has_probe(config, environments.gradient.env):
        flags = f"--probe-envs {config.probe_envs}, --probe-steps {config.probe_steps}"
        needs[f"the gradient probe ({flags})"] = probe_bytes(config, obs_size, action_size)
    if n_epochs := getattr(config, "n_epochs", 0):
        indices = 8.0 * num_envs * n_steps * n_epochs
        flags = f"--num-envs {num_envs}, --n-steps {n_steps}, --n-epochs {n_epochs}"
        needs[f"the minibatches of an update ({flags})"] = indices
    require_memory(needs, available_memory(), _flags(needs))


def probe_bytes(config: Any, obs_size: int, action_size: int) -> float:
    """Bytes of the environments in which a critic is measured, at the least.

    They are a batch, a window of it, and the gradients of its trajectories by the three estimators
    that are compared: the score function, pathwise, and through the critic.
    """
    num_envs, sizes = config.probe_envs, [obs_size, *config.hidden, action_size]
    return (
        batch_bytes(num_envs, obs_size, action_size)
        + window_bytes(config.probe_steps, num_envs, obs_size, action_size)
        + gradients_bytes(num_envs, 3, sizes)
    )


def require_evaluation_memory(environments: Environments, episodes: int) -> None:
    """Raises unless an evaluation of that many episodes can be in memory.

    Raises:
        RequestError: it cannot.
    """
    needs = {f"the environments (--episodes {episodes})": evaluation_bytes(environments, episodes)}
    require_memory(needs, available_memory(), "--episodes")


def require_study_memory(environments: Environments, trajectories: int, horizon: int) -> None:
    """Raises unless the longest window of a study of variances can be in memory.

    Raises:
        RequestError: it cannot.
    """
    size = window_bytes(horizon, trajectories, *sizes_of(environments))
    needs = {f"a window (--trajectories {trajectories}, --horizons {horizon})": size}
    require_memory(needs, available_memory(), "--trajectories or --horizons")


def require_statistics_memory(num_parameters: int, trajectories: int, *, mixes: bool) -> None:
    """Raises unless a study can hold the gradient of every trajectory, and compare them.

    Raises:
        RequestError: it cannot.
    """
    copies = STUDY_COPIES_MIXED if mixes else STUDY_COPIES
    size = float(FLOAT_BYTES) * num_parameters * trajectories * copies
    needs = {f"the gradients (--trajectories {trajectories}, {num_parameters:,} parameters)": size}
    require_memory(needs, available_memory(), "--trajectories or --hidden")


def _flags(needs: Mapping[str, float]) -> str:
    """The flags that the largest need names."""
    largest = max(needs, key=needs.__getitem__)
    return " or ".join(
        word.strip("(),") for word in largest.split() if word.lstrip("(")[:2] == "--"
    )


def sizes_of(environments: Environments) -> tuple[int, int]:
    """Numbers of an observation and of an action; 1 where that is known only once one is made."""
    env = environments.gradient.env
    return (1, 1) if env is None else (_size(env.observation_space), _size(env.action_space))


def _size(space: Space[Any]) -> int:
    return math.prod(space.shape) if isinstance(space, Box) else 1


def env_bytes(environments: Environments, num_envs: int) -> float:
    """Bytes of that many environments for training, at the least."""
    if environments.gradient.env is None:
        return float(PYTHON_ENV_BYTES) * num_envs
    return batch_bytes(num_envs, *sizes_of(environments))


def evaluation_bytes(environments: Environments, episodes: int) -> float:
    """Bytes of the environments of an evaluation; those that are no batch are few."""
    if not environments.batched:
        return 0.0
    return batch_bytes(episodes, *sizes_of(environments))
