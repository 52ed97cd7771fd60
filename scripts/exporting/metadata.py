"""What an exported policy's file says about itself."""

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pgtoolkit.errors import single_line
from pgtoolkit.networks.flat_rows import sections
from pgtoolkit.policies.action_graph import observation_dtype
from pgtoolkit.version import __version__

MAX_ENTRIES = 1000
"""Most entries of an observation whose bounds are listed where they differ."""


def describe_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    own_observation_space: spaces.Space[Any] | None = None,
    own_action_space: spaces.Space[Any] | None = None,
    env: str,
    agent: str,
    num_steps: int | None,
) -> dict[str, Any]:
    """The metadata of a file: names, shapes, dtypes and bounds of input and output, and the run.

    Args:
        observation_space: of one environment, as the policy reads it.
        action_space: of one environment.
        own_observation_space: the environment's, before it was flattened.
        own_action_space: the same of its actions.
        env: the environment's name.
        agent: the agent's name.
        num_steps: environment steps of the policy's training, where they are known.
    """
    observation = describe_space("observation", observation_space)
    observation["dtype"] = observation_dtype(observation_space).name
    if isinstance(own_observation_space, spaces.Dict | spaces.Tuple):
        observation["parts"] = [part._asdict() for part in sections(own_observation_space)]
    action = describe_space("action", action_space)
    if own_action_space is not None and own_action_space != action_space:
        action["units"] = (
            "categories from 0 and one row, which the environment's own action space, "
            f"{single_line(own_action_space)}, may have otherwise"
        )
    return {
        "producer": f"pgtoolkit {__version__}",
        "env": env,
        "agent": agent,
        "num_steps": num_steps,
        "observation": observation,
        "action": action,
    }


def describe_space(name: str, space: spaces.Space[Any]) -> dict[str, Any]:
    """Name, shape, dtype, units and bounds of the input or output whose rows are in this space."""
    assert space.shape is not None and space.dtype is not None, "the policy's spaces are simple"
    found = {
        "name": name,
        "shape": ["N", *space.shape],
        "dtype": np.dtype(space.dtype).name,
        "units": f"those of the environment's {name}_space, without any scaling",
    }
    if isinstance(space, spaces.Box):
        return found | {"low": bounds(space.low), "high": bounds(space.high)}
    if isinstance(space, spaces.MultiDiscrete):
        return found | {"categories": space.nvec.tolist()}
    return found | {"categories": int(space.n) if isinstance(space, spaces.Discrete) else 2}


def bounds(values: NDArray[Any]) -> float | list[float | None] | None:
    """Bounds for JSON, with null for none; one number or null where all entries are alike.

    Null too where there are many and they differ.
    """
    listed = [float(x) if np.isfinite(x) else None for x in values.flat]
    if len(set(listed)) == 1:
        return listed[0]
    return listed if len(listed) <= MAX_ENTRIES else None
