"""Saves and restores ordinary vector environments: where each environment's episode is.

A vector environment that can be saved has ``get_states() -> list[dict]``, one state for each
environment, and ``set_states(states) -> observations``. A state may say its ``kind``:
``state``, ``replay``, ``new episodes``, or ``dropped`` for an environment that is out of the run.
"""

from collections import Counter
from typing import Any

import numpy as np
import torch

from pgtoolkit.envs.vector import DifferentiableVectorEnv
from pgtoolkit.errors import RequestError
from pgtoolkit.gymnasium_types import AnyVectorEnv
from pgtoolkit.rollouts.rollout import RolloutState, reset
from pgtoolkit.state import StateError, at

STATE_RESTORED = "state restored"

MAX_SHOWN_SEEDS = 4
"""Most seeds that the sentence about new episodes lists."""


def get_states(env: AnyVectorEnv) -> list[dict[str, Any]] | None:
    """The state of every environment; None if the vector environment gives no access to them."""
    own: Any = env
    if not callable(getattr(own, "get_states", None)):
        return None
    states: list[dict[str, Any]] = own.get_states()
    return states


def set_states(env: AnyVectorEnv, states: list[dict[str, Any]]) -> Any:
    """Puts every environment into its state; returns the observations ``[N, ...]``.

    Raises:
        RequestError: a state is of another environment or damaged, or there are too few.
    """
    own: Any = env
    if not callable(getattr(own, "set_states", None)):
        raise RequestError(f"the environments of a {type(env).__name__} cannot be put back")
    return own.set_states(states)


def saved_environments(
    env: AnyVectorEnv, rollout_state: RolloutState, *, seed: int
) -> dict[str, Any]:
    """The state of the environments and of their rollout, to be saved.

    Args:
        env: an ordinary vector environment.
        rollout_state: what the next step acts on.
        seed: the seed of the first environment's reset if it must start a new episode; the next
            has the next seed.
    """
    states = get_states(env)
    seeds = range(seed, seed + env.num_envs)
    if states is not None:
        states = [
            state | {"seed": new} if state.get("kind") == "new episodes" else state
            for state, new in zip(states, seeds, strict=True)
        ]
    return {
        "environments": states,
        "seeds": list(seeds),
        "obs": rollout_state.obs,
        "needs_reset": rollout_state.needs_reset,
        "episode_start": rollout_state.episode_start,
    }


def restored_environments(
    env: AnyVectorEnv, fresh: RolloutState, saved: dict[str, Any]
) -> tuple[RolloutState, str]:
    """Puts back what :func:`saved_environments` saved.

    Args:
        env: the vector environment of the resuming process.
        fresh: its present rollout state.
        saved: the saved state.

    Returns:
        The rollout state to go on from, and a sentence that says how the environments go on.
    """
    states, device = saved["environments"], fresh.obs.device
    try:
        if states is None:
            raise RequestError(f"{type(env).__name__} gives no access to their state")
        with at("environments"):
            obs = torch.from_numpy(np.asarray(set_states(env, states)))
    except StateError:
        raise
    except RequestError as error:
        sentence = f"{_new_sentence(saved['seeds'])} ({error})"
        return reset(env, seed=saved["seeds"][0], device=device), sentence
    new = torch.tensor([kind_of(state) == "new episodes" for state in states])
    saved_obs = saved["obs"].cpu()
    rows = new.reshape(-1, *[1] * (saved_obs.dim() - 1))
    parts = (
        torch.where(rows, obs.to(saved_obs), saved_obs),
        saved["needs_reset"].cpu() & ~new,
        saved["episode_start"].cpu() | new,
    )
    return RolloutState(*(part.to(device) for part in parts)), _sentence(states)


def start_sentence(env: AnyVectorEnv, command: str) -> str:
    """How a run would go on with these environments after a stop.

    Args:
        env: a vector environment, whose attribute ``resume_choice`` says it.
        command: what resumes the run.
    """
    choice, begin = getattr(env, "resume_choice", None), f"if this run is stopped, {command}"
    if isinstance(env, DifferentiableVectorEnv) or (choice and choice.kind == "state"):
        return f"{begin} continues it exactly"
    if choice is None:
        return f"{begin} starts new episodes: {type(env).__name__} has no get_states()"
    if choice.kind == "replay":
        return f"{begin} takes the episodes under way again ({choice.reason})"
    return f"{begin} starts new episodes: {choice.reason}"


def kind_of(state: dict[str, Any]) -> str:
    """How an environment goes on from a saved state; one that does not say it is exact."""
    return str(state.get("kind", "state"))


def _sentence(states: list[dict[str, Any]]) -> str:
    kinds = Counter(map(kind_of, states))
    found = []
    if kinds["state"]:
        found.append(STATE_RESTORED)
    if kinds["replay"]:
        steps = sum(
            state["actions"]["shape"][0]
            for state in states
            if kind_of(state) == "replay" and state["actions"] is not None
        )
        found.append(f"episodes replayed, {steps:,} steps")
    if kinds["new episodes"]:
        new = [state for state in states if kind_of(state) == "new episodes"]
        sentence = _new_sentence([state["seed"] for state in new])
        found.append(f"{sentence} ({new[0].get('reason', '')})")
    return "; ".join(found)


def _new_sentence(seeds: list[int]) -> str:
    shown = ", ".join(map(str, seeds[:MAX_SHOWN_SEEDS]))
    return f"new episodes with seeds {shown}{', ...' if len(seeds) > MAX_SHOWN_SEEDS else ''}"
