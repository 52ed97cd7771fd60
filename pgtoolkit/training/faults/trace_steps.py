"""What happened at each step of a window, also of one that was not completed."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from pgtoolkit.rollouts.tape import Event

REWARD, ACTION, OBSERVATION = "reward", "action", "observation"
AFTER_RESET = "observation after a reset"


@final
class Step(NamedTuple):
    """One step of all environments, in the order in which its tensors are computed.

    Attributes:
        obs: ``[N, O]`` what the policy acted on.
        tensors: name to ``[N, ...]``, in order of computation; without those that were not reached.
        state: the state's tensors before the step, where it is known.
    """

    obs: Tensor
    tensors: dict[str, Tensor]
    state: list[Tensor]


@final
class Bad(NamedTuple):
    """An entry of a step that is not finite."""

    step: int
    tensor: str
    env_index: int
    value: float


def first_bad(steps: Sequence[Step]) -> Bad | None:
    """The earliest tensor of a window that is not finite, in order of time and computation.

    A reward counts as rollouts keep it, in float32; its value is the one that was returned.
    """
    for number, step in enumerate(steps):
        for name, tensor in step.tensors.items():
            kept = tensor.float() if name == REWARD else tensor
            rows = bad_rows(kept)
            if rows:
                bad = ~kept[rows[0]].isfinite()
                return Bad(number, name, rows[0], float(tensor[rows[0]][bad].flatten()[0]))
    return None


def largest(steps: Sequence[Step], name: str) -> Bad | None:
    """The entry of a tensor that is largest in size."""
    found: Bad | None = None
    for number, step in enumerate(steps):
        tensor = step.tensors.get(name)
        if tensor is None or not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        size = tensor.abs().flatten(1).amax(1) if tensor.dim() > 1 else tensor.abs()
        row = int(size.argmax())
        if found is None or float(size[row]) > abs(found.value):
            found = Bad(number, name, row, float(size[row]))
    return found


def bad_rows(tensor: Tensor) -> list[int]:
    """The rows ``n`` of ``[N, ...]`` that hold a number that is not finite."""
    if not tensor.is_floating_point():
        return []
    bad = ~torch.isfinite(tensor)
    bad = bad.flatten(1).any(1) if bad.dim() > 1 else bad
    return [int(i) for i in bad.nonzero().flatten()]


def taped_steps(events: Sequence[Event], obs: Tensor, dtype: torch.dtype) -> list[Step]:
    """The steps on a tape, with observations as a rollout keeps them, rewards as they came.

    Args:
        events: the calls of the environments.
        obs: ``[N, O]`` the observation before the first one.
        dtype: the dtype in which observations are kept.
    """
    obs = obs.to(dtype)
    steps: list[Step] = []
    for event in events:
        if "actions" not in event:  # a reset of all environments
            obs = torch.from_numpy(event["obs"]).to(dtype)
            if bad_rows(obs):
                steps.append(Step(obs, {AFTER_RESET: obs}, []))
            continue
        tensors = {ACTION: torch.from_numpy(event["actions"])}
        before = obs
        if "obs" in event:
            after = torch.from_numpy(event["obs"]).to(dtype)
            tensors[REWARD] = torch.from_numpy(event["reward"])
            tensors |= observed(after, event)
            obs = after
        steps.append(Step(before, tensors, []))
    return steps


def observed(after: Tensor, event: Event) -> dict[str, Tensor]:
    """The observations of a step before and, where an episode ended, after a reset."""
    if "final_mask" not in event:
        return {OBSERVATION: after}
    mask = torch.from_numpy(event["final_mask"])
    before = after.clone()
    before[mask] = torch.from_numpy(np.asarray(event["final_obs"])).to(after.dtype)
    return {OBSERVATION: before, AFTER_RESET: after}


@final
class WatchedEnv:
    """Steps a differentiable vector environment and keeps every step's tensors.

    Args:
        env: the environment, with ``graph_state``.
        seen: called with each step's number and its differentiable results.
    """

    def __init__(self, env: Any, seen: Callable[[int, dict[str, Tensor]], None]) -> None:
        self.env, self.num_envs, self.seen = env, env.num_envs, seen
        self.steps: list[Step] = []
        self.obs: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def detach(self) -> Tensor:
        self.obs = self.env.detach()
        return self.obs

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        before = [leaf.detach() for leaf in self._leaves()]
        obs = actions if self.obs is None else self.obs
        tensors = {ACTION: actions.detach()}
        step = Step(obs.detach(), tensors, before)
        self.steps.append(step)
        result = self.env.step(actions)
        after, reward, _, _, info = result
        done = info.get("_final_obs", torch.zeros(self.num_envs, dtype=torch.bool))
        final = info.get("final_obs", after)
        named = dict(zip(self._names(), self._leaves(), strict=True))
        for name, leaf in named.items():
            tensors[name] = keep_rows(leaf.detach(), ~done.to(leaf.device))
        tensors |= {REWARD: reward.detach(), OBSERVATION: final.detach()}
        tensors[AFTER_RESET] = after.detach()
        self.obs = after
        live = {f"next {name}": leaf for name, leaf in named.items()}
        self.seen(
            len(self.steps) - 1,
            {ACTION: actions, **live, REWARD: reward, OBSERVATION: final, AFTER_RESET: after},
        )
        return result  # type: ignore[no-any-return]

    def _leaves(self) -> list[Tensor]:
        state = self.env.graph_state().state
        return [state] if isinstance(state, Tensor) else list(state)

    def _names(self) -> Iterator[str]:
        state = self.env.graph_state().state
        if isinstance(state, Tensor):
            yield "state"
        else:
            names = getattr(state, "_fields", range(len(state)))
            yield from (f"state {name}" for name in names)


def keep_rows(tensor: Tensor, mask: Tensor) -> Tensor:
    """The tensor ``[N, ...]`` with zeros in the rows that are not in the mask ``[N]``."""
    return torch.where(mask.view(-1, *[1] * (tensor.dim() - 1)), tensor, torch.zeros_like(tensor))
