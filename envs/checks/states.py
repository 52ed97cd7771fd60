"""States as the checks handle them: copies, rows, names of tensors, and rows of numbers."""

import dataclasses
import math
from typing import Any, final

import torch
from torch import Tensor

from pgtoolkit.envs.differentiable import DifferentiableEnv
from pgtoolkit.envs.states import State, cast_state, leaves_of, map_state, rebuild_state

CPU = torch.device("cpu")


def start_states(
    env: DifferentiableEnv,
    num_envs: int,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float64,
) -> State:
    """A copy of ``env.initial``'s states on the CPU, in the dtype."""
    return cast_state(copy_state(env.initial(num_envs, generator)), CPU, dtype)


def copy_state(state: State) -> State:
    """A detached copy that shares no memory with the state."""
    return map_state(lambda leaf: leaf.detach().clone(), state)


def take_rows(state: State, index: Tensor) -> State:
    """The rows at ``index`` (numbers, or a mask ``[N]``)."""
    return map_state(lambda leaf: leaf[index], state)


def join_states(states: list[State]) -> State:
    """Concatenates states along the environment axis."""
    return map_state(lambda *like: torch.cat(like), states[0], *states[1:])


def num_floats(state: State) -> int:
    """Number of floating-point entries of one environment's state."""
    return sum(leaf[0].numel() for leaf in leaves_of(state) if leaf.is_floating_point())


def varies(state: State) -> bool:
    """Whether the rows of the state differ; NaN equals NaN."""
    return any(not equal_entries(leaf, leaf[:1].expand_as(leaf)) for leaf in leaves_of(state))


def equal_entries(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and equal entries; NaN equals NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def leaf_names(state: State, name: str = "state") -> list[str]:
    """Names of the state's tensors in messages: ``state``, ``state.position`` or ``state[1]``."""
    if isinstance(state, Tensor):
        return [name]
    fields = getattr(state, "_fields", None)
    return (
        [f"{name}.{f}" for f in fields] if fields else [f"{name}[{i}]" for i in range(len(state))]
    )


def entry_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names of a tensor's entries: ``a[0]``, ``a[1]``, ..., or ``a[0,0]``, ``a[0,1]``, ..."""
    indices = torch.cartesian_prod(*[torch.arange(n) for n in shape]).reshape(-1, len(shape))
    return [f"{name}[{','.join(map(str, index))}]" for index in indices.tolist()]


@final
@dataclasses.dataclass(frozen=True)
class FlatState:
    """Converts states to rows of their ``D`` floating-point entries, and back."""

    template: State
    """``[N, ...]`` gives types, shapes, and the values of integer and boolean tensors."""
    name: str
    """Prefix of the entries' names."""

    def pack(self, state: State) -> Tensor:
        """``[N, D]`` float64."""
        rows = leaves_of(state)[0].shape[0]
        parts = [
            leaf.reshape(rows, -1).double() for leaf in leaves_of(state) if leaf.is_floating_point()
        ]
        return torch.cat(parts, 1) if parts else torch.zeros(rows, 0).double()

    def unpack(self, flat: Tensor, rows: Tensor) -> State:
        """The state with floating-point entries ``flat``.

        Args:
            flat: ``[K, D]``.
            rows: ``[K]`` rows of the template that give the other tensors' values.
        """
        leaves, start = [], 0
        for leaf in leaves_of(self.template):
            if not leaf.is_floating_point():
                leaves.append(leaf[rows])
                continue
            size = math.prod(leaf.shape[1:])
            part = flat[:, start : start + size]
            leaves.append(part.reshape(part.shape[0], *leaf.shape[1:]))
            start += size
        whole: Any = leaves[0] if isinstance(self.template, Tensor) else tuple(leaves)
        return rebuild_state(self.template, whole)

    def names(self) -> list[str]:
        """``[D]`` names of the entries in messages."""
        found: list[str] = []
        names = leaf_names(self.template, self.name)
        for name, leaf in zip(names, leaves_of(self.template), strict=True):
            if leaf.is_floating_point():
                found += [name] if leaf.dim() == 1 else entry_names(name, tuple(leaf.shape[1:]))
        return found
