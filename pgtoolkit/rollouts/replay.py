"""A replay buffer: the newest transitions, from which minibatches are drawn."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.rollouts.transitions import TRANSITION_FIELDS, Transitions
from pgtoolkit.state import Schema, anything, array, entries, integer, mapping, require


@final
class ReplayBuffer:
    """A ring of the newest ``capacity`` transitions: once full, the oldest are overwritten.

    The tensors are allocated once, with the dtypes and shapes of the example: images that arrive as
    uint8 are stored as uint8.

    Args:
        capacity: number of transitions that fit.
        example: transitions ``[M]``, ``M >= 0``, with the names, shapes and dtypes to store; their
            values are not stored. None takes them from the first transitions that are added.
        device: where the tensors are stored; None is the device of the example.

    Raises:
        RequestError: the capacity is less than 1, or the example has not one leading axis.
    """

    def __init__(
        self,
        capacity: int,
        example: Transitions | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        if capacity < 1:
            raise RequestError(f"a replay buffer's capacity must be at least 1, not {capacity}")
        self.capacity, self.device = capacity, device
        self.added = 0
        """Number of transitions added so far, those that were overwritten included."""
        self._storage: dict[str, Tensor] = {}
        if example is not None:
            self._allocate(example)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    @torch.no_grad()
    def add(self, transitions: Transitions) -> None:
        """Appends transitions ``[M]``, in this order; of more than fit, only the last are stored.

        Raises:
            RequestError: names, shapes or dtypes are not those of the stored transitions.
        """
        if not self._storage:
            self._allocate(transitions)
        tensors, total = transitions.tensors(), len(transitions.reward)
        self._require_like_stored(tensors, total)
        if total == 0:
            return
        self.added += total
        count = min(total, self.capacity)
        start = (self.added - count) % self.capacity
        before_wrap = min(count, self.capacity - start)
        for name, stored in self._storage.items():
            newest = tensors[name][total - count :]
            stored[start : start + before_wrap] = newest[:before_wrap]
            if before_wrap < count:
                stored[: count - before_wrap] = newest[before_wrap:]

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Transitions:
        """Draws transitions ``[*shape]`` uniformly with replacement, as copies.

        Raises:
            RequestError: the buffer is empty.
        """
        if len(self) == 0:
            raise RequestError(
                "nothing can be drawn from an empty replay buffer: add transitions first"
            )
        device = generator.device
        return self._at(torch.randint(len(self), shape, generator=generator, device=device))

    def newest(self, count: int) -> Transitions:
        """Copies of the last ``count`` transitions, or of all if there are fewer, oldest first.

        Raises:
            RequestError: nothing was added yet and there was no example, so shapes are not known.
        """
        count = min(count, len(self))
        return self._at(torch.arange(self.added - count, self.added) % self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """The stored transitions as views, and the place at which the next one is written."""
        tensors = {name: stored[: len(self)] for name, stored in self._storage.items()}
        return {"capacity": self.capacity, "added": self.added, "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a buffer exactly: later draws are those of the saved one.

        Raises:
            RequestError: the saved buffer had another capacity, or other names, shapes or dtypes.
            StateError: the state is damaged.
        """
        require(state, self._state_schema())
        if state["capacity"] != self.capacity:
            raise RequestError(
                f"the saved replay buffer holds {state['capacity']} transitions and this one "
                f"{self.capacity}, so places in the ring differ: use the saved capacity"
            )
        tensors = state["tensors"]
        require(tensors, self._tensors_schema(tensors, state["added"]), "tensors")
        if tensors:
            saved = Transitions.from_tensors(tensors)
            if not self._storage:
                self._allocate(saved)
            self._require_like_stored(tensors, len(saved.reward))
        self.added = state["added"]
        for name, tensor in tensors.items():
            self._storage[name][: len(self)] = tensor

    def _state_schema(self) -> Schema:
        return entries({"capacity": integer(1), "added": integer(), "tensors": mapping(anything)})

    def _tensors_schema(self, saved: Mapping[str, Any], added: int) -> Schema:
        """As many transitions as were added and fit, like the stored ones if there are any.

        A buffer that was made without an example has stored none: names and shapes are the saved
        ones' then, with the five fields that all transitions have.
        """
        if not saved and added == 0:
            return entries({})
        count = min(added, self.capacity)
        if self._storage:
            shapes = {name: (x.dtype, x.shape[1:]) for name, x in self._storage.items()}
        else:
            required = dict.fromkeys(TRANSITION_FIELDS, (torch.float32, torch.Size()))
            given = {name: x for name, x in saved.items() if isinstance(x, Tensor)}
            shapes = required | {name: (x.dtype, x.shape[1:]) for name, x in given.items()}
        return entries({name: array(kind, (count, *of)) for name, (kind, of) in shapes.items()})

    def _allocate(self, example: Transitions) -> None:
        if example.reward.dim() != 1:
            raise RequestError(
                f"the reward of transitions for a replay buffer has shape "
                f"{list(example.reward.shape)}: flatten them to one leading axis [M]"
            )
        self._storage = {
            name: torch.empty(  # memory that nothing was written to is not taken, on most systems
                (self.capacity, *tensor.shape[1:]),
                dtype=tensor.dtype,
                device=tensor.device if self.device is None else self.device,
            )
            for name, tensor in example.tensors().items()
        }

    def _require_like_stored(self, tensors: Mapping[str, Tensor], count: int) -> None:
        """Raises unless the tensors ``[count, ...]`` can be stored without a conversion."""
        if tensors.keys() != self._storage.keys():
            raise RequestError(
                f"the transitions have {sorted(tensors)}, but the replay buffer stores "
                f"{sorted(self._storage)}: add transitions with the same extras each time"
            )
        for name, stored in self._storage.items():
            tensor, shape = tensors[name], (count, *stored.shape[1:])
            if tensor.shape != shape or tensor.dtype != stored.dtype:
                raise RequestError(
                    f"{name} of the transitions is {tensor.dtype} {list(tensor.shape)}, but the "
                    f"replay buffer stores {stored.dtype} {list(shape)}: convert it before adding, "
                    "or make the buffer with an example of this kind"
                )

    def _at(self, index: Tensor) -> Transitions:
        """Copies of the transitions at these places of the ring, ``[*index.shape]``."""
        if not self._storage:
            raise RequestError(
                "the replay buffer has stored nothing yet, so it has no shapes: give it an example"
            )
        device = self._storage["reward"].device
        places, shape = index.flatten().to(device), index.shape
        return Transitions.from_tensors(
            {
                name: stored.index_select(0, places).reshape(*shape, *stored.shape[1:])
                for name, stored in self._storage.items()
            }
        )


def without_transitions(state: dict[str, Any]) -> dict[str, Any]:
    """An agent's state with only the counts of its replay buffer, if it has one as ``replay``.

    The transitions may take more memory than all the rest, and do not change once they are stored.
    """
    replay = state.get("replay")
    return state if replay is None else state | {"replay": replay | {"tensors": {}}}


def with_transitions(state: dict[str, Any], later: Mapping[str, Any] | None) -> dict[str, Any]:
    """The inverse of :func:`without_transitions`, from a later state of the same buffer.

    It is exact as long as the ring has not overwritten what the earlier one held; places that were
    overwritten since hold newer transitions.

    Args:
        state: an agent's state whose buffer has counts alone.
        later: the state of its buffer then or later; None if unknown.
    """
    replay = state.get("replay")
    if replay is None or replay["tensors"] or later is None or replay["added"] == 0:
        return state
    count = min(replay["added"], replay["capacity"])
    tensors = {name: x[:count] for name, x in later["tensors"].items()}
    return state | {"replay": replay | {"tensors": tensors}}
