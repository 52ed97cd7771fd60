"""The parts of an agent by name: its modules, and the parameters that its optimisers follow."""

import dataclasses
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from pgtoolkit.diagnostics.monitor import GradientMonitor
from pgtoolkit.learners.flat_module import FlatOptimizer
from pgtoolkit.learners.minibatches import Minibatches
from pgtoolkit.learners.scanned_steps import ScannedSteps

DEPTH = 4
"""Attributes of attributes that are looked at; agents are two deep."""
MOMENTS = {
    "exp_avg": "Adam's first moment",
    "exp_avg_sq": "Adam's second moment",
    "mean": "Adam's first moment",
    "square": "Adam's second moment",
    "step": "Adam's count of steps",
    "steps": "Adam's count of steps",
}


@final
@dataclasses.dataclass(frozen=True)
class Named:
    """What an entry of an agent's state is."""

    kind: str
    """``parameter``, ``buffer``, ``moment``, or ``state`` for anything else."""
    name: str
    """The parameter's or the buffer's name in its module; else the path."""
    words: str
    """The entry in words, for a sentence."""


@final
class AgentParts:
    """Finds an agent's modules, optimisers and monitors in its attributes.

    Attributes:
        modules: path in the agent to module.
        monitors: the agent's gradient monitors.
        minibatches: what holds the parameters and Adam's moments of a module in one vector.
        loops: its loops over minibatches, which may be compiled.
    """

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.minibatches: dict[str, Minibatches[Any] | FlatOptimizer] = {}
        self.loops: list[Minibatches[Any] | ScannedSteps[Any, Any]] = []
        self.monitors: list[GradientMonitor] = []
        for path, part in walk(agent):
            if isinstance(part, nn.Module):
                self.modules[path] = part
            elif isinstance(part, torch.optim.Optimizer):
                self.optimizers[path.rpartition(".")[0]] = part
            elif isinstance(part, Minibatches):
                self.minibatches[path] = part
                self.loops.append(part)
            elif isinstance(part, FlatOptimizer):
                self.minibatches[path] = part
            elif isinstance(part, ScannedSteps):
                self.loops.append(part)
            elif isinstance(part, GradientMonitor) and part not in self.monitors:
                self.monitors.append(part)
        owned = {id(part) for m in self.modules.values() for part in list(m.modules())[1:]}
        self._roots = [m for m in self.modules.values() if id(m) not in owned]
        unique = {id(p): p for module in self._roots for p in module.parameters()}
        self._listed = list(unique.values())
        self._names: dict[int, tuple[str, str]] = {}
        for path, module in [("policy", agent.policy), *self.modules.items()]:
            for name, parameter in module.named_parameters():
                self._names.setdefault(id(parameter), (owner_words(path), name))

    def tensors(self) -> list[Tensor]:
        """All parameters, floating-point buffers and moments as they are now."""
        found: list[Tensor] = list(self._listed)
        for module in self._roots:
            found += [x for x in module.buffers() if x.is_floating_point() and x.numel() > 0]
        for optimizer in self.optimizers.values():
            found += [x for state in optimizer.state.values() for x in state.values()]
        for minibatches in self.minibatches.values():
            found += [minibatches.state.mean, minibatches.state.square]
        return [x.detach() for x in found if isinstance(x, Tensor)]

    def name_of(self, parameter: Tensor) -> tuple[str, str]:
        """The owner of a parameter in words, and its name there."""
        return self._names.get(id(parameter), ("agent", "?"))

    def parameters(self) -> dict[tuple[str, str], Tensor]:
        """Every parameter by owner and name, once."""
        found: dict[tuple[str, str], Tensor] = {}
        for module in (self.agent.policy, *self.modules.values()):
            for parameter in module.parameters():
                found.setdefault(self.name_of(parameter), parameter)
        return found

    def layers(self) -> dict[nn.Module, str]:
        """Modules without parts of their own, each with its name in words."""
        found: dict[nn.Module, str] = {}
        for path, module in [("policy", self.agent.policy), *self.modules.items()]:
            for name, layer in module.named_modules():
                if not list(layer.children()):
                    found.setdefault(
                        layer, f"{name or type(layer).__name__} of the {owner_words(path)}"
                    )
        return found

    def describe(self, path: str, index: int) -> Named:
        """What an entry of the agent's state is.

        Args:
            path: the path of a tensor in the state.
            index: the place of the entry in the flattened tensor.
        """
        for prefix, module in sorted(self.modules.items(), key=lambda item: -len(item[0])):
            if path.startswith(f"{prefix}."):
                return self._module_entry(prefix, module, path.removeprefix(f"{prefix}."))
        for prefix, optimizer in self.optimizers.items():
            if path.startswith(f"{prefix}.state."):
                number, _, what = path.removeprefix(f"{prefix}.state.").partition(".")
                listed = [p for group in optimizer.param_groups for p in group["params"]]
                known = number.isdigit() and int(number) < len(listed)
                return self._moment(listed[int(number)] if known else None, what, path)
        for prefix, minibatches in self.minibatches.items():
            if path.startswith(f"{prefix}."):
                at = parameter_at(minibatches.parameters, index)
                return self._moment(at, path.rpartition(".")[2], path)
        return Named("state", path, f"the agent's state {path}")

    def _module_entry(self, prefix: str, module: nn.Module, rest: str) -> Named:
        parameter = dict(module.named_parameters(remove_duplicate=False)).get(rest)
        if parameter is not None:
            owner, name = self.name_of(parameter)
            return Named("parameter", name, f"the parameter {name} of the {owner}")
        owner = owner_words(prefix)
        what = "observation normaliser's " if rest.startswith("normalizer.") else ""
        leaf = rest.removeprefix("normalizer.")
        return Named("buffer", rest, f"the {what}{leaf} ({rest}) of the {owner}")

    def _moment(self, parameter: Tensor | None, what: str, path: str) -> Named:
        owner, name = ("agent", path) if parameter is None else self.name_of(parameter)
        words = f"{MOMENTS.get(what, what)} of the parameter {name} of the {owner}"
        return Named("moment", name, words)


def parameter_at(parameters: list[Tensor], index: int) -> Tensor | None:
    """The parameter that holds this entry of all parameters in one vector."""
    for parameter in parameters:
        index -= parameter.numel()
        if index < 0:
            return parameter
    return None


def walk(part: Any, path: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """The attributes of this package's objects, and theirs, by path."""
    for name, value in list(getattr(part, "__dict__", {}).items()):
        here = f"{path}.{name}" if path else name
        if isinstance(value, nn.Module | torch.optim.Optimizer):
            yield here, value
        elif is_part(value) and depth > 1:
            yield here, value
            yield from walk(value, here, depth - 1)


def is_part(value: Any) -> bool:
    """Whether this is an object whose attributes may hold modules, and no function or class."""
    plain = not callable(value) and hasattr(value, "__dict__")
    return isinstance(value, Minibatches) or (plain and not isinstance(value, Tensor))


def owner_words(path: str) -> str:
    """A module's place in an agent, in words."""
    parts = path.split(".")
    if parts[-1] == "lagged":
        return "lagged value function"
    if parts[-1] in ("value_function", "module") or parts[-1] == "value":
        return "value function"
    return "policy" if parts[-1] == "policy" else path
