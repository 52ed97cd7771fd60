"""The state of an object as a dictionary that a checkpoint can hold, by a list of its parts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch


def state_of(owner: object, names: Sequence[str]) -> dict[str, Any]:
    """``{name: state}`` of the attributes ``names``.

    A module, an optimiser, or anything else with ``state_dict`` gives that; a generator gives its
    state; a tensor, number, string or None is itself.
    """
    return {name: _pack(getattr(owner, name)) for name in names}


def load_state_of(owner: object, names: Sequence[str], state: Mapping[str, Any]) -> None:
    """Puts back what :func:`state_of` gave.

    Raises:
        KeyError: a name is missing.
        RuntimeError: a module's state has other shapes.
    """
    for name in names:
        part = getattr(owner, name)
        if isinstance(part, torch.Generator):
            part.set_state(state[name].cpu())
        elif hasattr(part, "load_state_dict"):
            part.load_state_dict(state[name])
        else:
            setattr(owner, name, state[name])


def _pack(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if hasattr(part, "state_dict") else part
