"""The state of known objects that Python's attributes do not show: MuJoCo's and torch's.

``mujoco`` is imported inside functions, because it is an optional package.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.envs.adapters.gymnasium.places import Place
from pgtoolkit.envs.adapters.gymnasium.pytree_writer import Writer
from pgtoolkit.envs.adapters.mujoco.model_fields import FieldPlace, model_fields
from pgtoolkit.envs.adapters.mujoco.snapshot import Snapshot
from pgtoolkit.errors import RequestError


def opaque_places(objects: Iterable[Any]) -> Iterator[Place]:
    """The places of the state of those objects that are an ``MjData``, ``MjModel`` or generator."""
    mujoco: Any = sys.modules.get("mujoco")  # not loaded: nothing of it is among the objects
    for number, value in enumerate(objects):
        if isinstance(value, torch.Generator):
            yield TorchGeneratorPlace(f"torch.Generator {number}", value)
        elif mujoco is not None and isinstance(value, mujoco.MjData):
            yield MujocoDataPlace(f"MjData {number}", value)
        elif mujoco is not None and isinstance(value, mujoco.MjModel):
            yield MujocoModelPlace(f"MjModel {number}", value)


@final
@dataclasses.dataclass(eq=False)
class TorchGeneratorPlace:
    """The state of a ``torch.Generator``."""

    name: str
    generator: torch.Generator
    layer: int = 0

    def read(self) -> NDArray[np.uint8]:
        state: NDArray[np.uint8] = self.generator.get_state().numpy()
        return state

    def write(self, value: Any) -> None:
        self.generator.set_state(torch.from_numpy(np.asarray(value, np.uint8)))

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


@final
class MujocoDataPlace:
    """All numbers of an ``MjData`` that a step or its environment may read.

    Contacts and constraints are not among them: MuJoCo's next step computes them from the rest.

    Args:
        name: the name of the place.
        data: the simulation.
    """

    layer = 0

    def __init__(self, name: str, data: Any) -> None:
        self.name, self.data = name, data
        self.snapshot = Snapshot(data.model, _buffer_names(data.model))

    def read(self) -> NDArray[np.float64]:
        return self.snapshot.capture(self.data)

    def write(self, value: Any) -> None:
        saved = np.asarray(value, np.float64)
        if saved.shape != (self.snapshot.size,):
            raise RequestError("the saved state is of another MuJoCo model or version of MuJoCo")
        self.snapshot.restore(self.data, saved)

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


@final
class MujocoModelPlace:
    """The parameters of an ``MjModel`` that have changed since this was made.

    Args:
        name: the name of the place.
        model: the model, as its environment's constructor left it.
    """

    layer = 0

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.fields = model_fields(model)
        self._first = [_copied(field) for field in self.fields]

    def read(self) -> dict[str, Any]:
        return {
            field.name: _copied(field)
            for field, first in zip(self.fields, self._first, strict=True)
            if not _same(field.read(), first)
        }

    def write(self, value: Any) -> None:
        for field, first in zip(self.fields, self._first, strict=True):
            wanted = value.get(field.name, first)
            if np.shape(wanted) != np.shape(first):
                raise RequestError(f"the saved {field.name} is of another MuJoCo model")
            if not _same(field.read(), wanted):
                field.write(wanted)

    def put(self, writer: Writer) -> None:
        writer.put(self.read())


def _buffer_names(model: Any) -> tuple[str, ...]:
    """The floating-point arrays of an ``MjData`` whose sizes do not depend on contacts."""
    data: Any = sys.modules["mujoco"].MjData(model)
    names = (name for name in dir(data) if not name.startswith("_"))
    found = ((name, getattr(data, name)) for name in names)
    return tuple(
        name
        for name, value in found
        if isinstance(value, np.ndarray)
        and value.size
        and value.dtype.kind == "f"
        # They are in the snapshot already.
        and name not in ("qpos", "qvel", "act", "qacc_warmstart")
    )


def _copied(field: FieldPlace) -> Any:
    value = field.read()
    return value.copy() if isinstance(value, np.ndarray) else value


def _same(one: Any, other: Any) -> bool:
    return np.asarray(one).tobytes() == np.asarray(other).tobytes()
