"""A tape of what ordinary environments returned, and a stand-in that plays it.

The state of an ordinary environment cannot always be restored. With its outputs on a tape the same
policy and the same noise give the same window again, bit for bit, whatever the environment is.
"""

from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv

Event = dict[str, NDArray[Any]]
"""A call of the environments. ``reset`` has ``obs``; ``step`` has ``actions`` and, unless the
environments raised, ``obs``, ``reward``, ``terminated`` and ``truncated`` ``[N, ...]``,
``final_mask`` ``[N]`` with ``final_obs`` ``[M, ...]`` where ``M`` episodes ended, and ``not_taken``
``[N]`` where environments failed and the run goes on."""


@final
class TapeEndError(RuntimeError):
    """The tape ends here, and more steps were asked for: the window is not the recorded one."""


@final
class TapedFaultError(RuntimeError):
    """The environments raised when they were asked for this step."""


@final
class TapedVectorEnv(VectorEnv[Any, Any, Any]):
    """Steps a vector environment and keeps what it returned.

    Args:
        env: the environments.

    Attributes:
        events: the calls since the list was last replaced; arrays are copies.
    """

    def __init__(self, env: AnyVectorEnv) -> None:
        self.env, self.num_envs, self.metadata = env, env.num_envs, env.metadata
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space
        self.events: list[Event] = []

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self.events.append({"obs": np.array(obs)})
        return obs, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        event = {"actions": np.array(actions)}
        self.events.append(event)
        result = self.env.step(actions)
        obs, reward, terminated, truncated, info = result
        event |= {"obs": np.array(obs), "reward": np.array(reward)}
        event |= {"terminated": np.array(terminated), "truncated": np.array(truncated)}
        if "final_obs" in info:
            mask = np.asarray(info.get("_final_obs", terminated | truncated), bool)
            event |= {"final_mask": mask, "final_obs": np.stack(list(info["final_obs"][mask]))}
        if "not_taken" in info:
            event["not_taken"] = np.array(info["not_taken"])
        return result


@final
class TapePlayer(VectorEnv[Any, Any, Any]):
    """Returns what is on a tape, in its order; it stands in for the environments.

    Args:
        env: the environments, of which spaces, number and metadata are taken; nothing is stepped.
        obs: ``[N, ...]`` the observation that a reset returns while no tape is loaded.

    Attributes:
        different: the place on the tape of the first step that was asked with other actions than
            those recorded; None if there was none.
    """

    def __init__(self, env: AnyVectorEnv, obs: NDArray[Any]) -> None:
        self.num_envs, self.metadata, self.spec = env.num_envs, env.metadata, env.spec
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.obs, self.events, self.place = obs, list[Event](), 0
        self.different: int | None = None

    def load(self, events: Iterable[Event]) -> None:
        """Puts in a tape, at its start."""
        self.events, self.place, self.different = list(events), 0, None

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        return (self._next()["obs"] if self.events else self.obs), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        event = self._next()
        if self.different is None and not same_bits(event["actions"], np.asarray(actions)):
            self.different = self.place - 1
        if "obs" not in event:
            raise TapedFaultError("the environments raised at this step")
        info: dict[str, Any] = {}
        if "final_mask" in event:
            final = np.empty(self.num_envs, object)
            for index, row in zip(
                event["final_mask"].nonzero()[0], event["final_obs"], strict=True
            ):
                final[index] = row
            info = {"final_obs": final, "_final_obs": event["final_mask"]}
        if "not_taken" in event:
            info["not_taken"] = event["not_taken"]
        return event["obs"], event["reward"], event["terminated"], event["truncated"], info

    def _next(self) -> Event:
        if self.place >= len(self.events):
            raise TapeEndError("the recording ends here")
        self.place += 1
        return self.events[self.place - 1]


def same_bits(one: NDArray[Any], two: NDArray[Any]) -> bool:
    """Whether two arrays are equal, NaN included."""
    return one.dtype == two.dtype and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")


def num_bytes(events: Iterable[Event]) -> int:
    """The bytes of all arrays of these events."""
    return sum(array.nbytes for event in events for array in event.values())


def pack_events(events: list[Event]) -> dict[str, Any]:
    """The events as a checkpoint holds them: by name, the places on the tape and all rows."""
    packed: dict[str, Any] = {"count": len(events)}
    for name in sorted({name for event in events for name in event}):
        places = [i for i, event in enumerate(events) if name in event]
        rows = [torch.from_numpy(np.atleast_1d(events[i][name])) for i in places]
        packed[name] = {
            "places": places,
            "lengths": [len(row) for row in rows],
            "rows": torch.cat(rows),
        }
    return packed


def unpack_events(packed: Mapping[str, Any]) -> list[Event]:
    """What :func:`pack_events` was given.

    Raises:
        RequestError: the recording is not one of a tape.
    """
    try:
        events: list[Event] = [{} for _ in range(int(packed["count"]))]
        for name, column in packed.items():
            if name != "count":
                parts = torch.split(column["rows"], [int(n) for n in column["lengths"]])
                for place, part in zip(column["places"], parts, strict=True):
                    events[place][name] = part.numpy()
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise RequestError(
            f"the recorded steps cannot be read ({type(error).__name__}): the file was altered, or "
            "another version wrote it"
        ) from error
    return events
