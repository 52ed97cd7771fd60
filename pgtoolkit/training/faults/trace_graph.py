"""Watches a computation of torch: the first layer or derivative that is not finite."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from pgtoolkit.training.faults.trace_steps import ACTION

OWN = (
    "/torch/",
    "/pgtoolkit/rollouts/",
    "/pgtoolkit/estimators/",
    "/pgtoolkit/training/",
    "/envs/vector.py",
    "/agents/",
)
"""Parts of the paths of frames that say nothing of where a derivative comes from."""


@final
class Origin(NamedTuple):
    """The first result that is not finite although all that it was computed from is.

    Attributes:
        forward: whether it is a layer's output, and not a derivative.
        name: the layer, or the operation that was differentiated.
        step: the step of the window; None if unknown.
        env_index: the environment; None if unknown.
        line: the line of code that computed what was differentiated; empty if unknown.
        value: the number.
    """

    forward: bool
    name: str
    step: int | None
    env_index: int | None
    line: str
    value: float


@final
class GraphWatch:
    """Hooks on layers and on the nodes of autograd's graph; none of them changes a number.

    Args:
        layers: the modules to watch, with their names in words.
        num_steps: ``T``, to tell the axes of a tensor.
        num_envs: ``N``.
        outputs: the layer whose output's derivative is kept, ``policy.head.output``.

    Attributes:
        origin: what was found first.
        adjoints: by name and step, the derivative of the objective by a step's tensors
            ``[N, ...]``.
        by_output: derivatives ``[T, N, ...]`` by the output of the layer ``outputs``.
    """

    def __init__(
        self,
        layers: Mapping[nn.Module, str],
        num_steps: int,
        num_envs: int,
        outputs: nn.Module | None = None,
    ) -> None:
        self.layers, self.outputs = layers, outputs
        self.num_steps, self.num_envs = num_steps, num_envs
        self.origin: Origin | None = None
        self.forward_origin: Origin | None = None
        self.adjoints: dict[str, dict[int, Tensor]] = {}
        self.by_output: list[Tensor] = []
        self.calls: dict[nn.Module, int] = {}
        self._steps: dict[Any, int | None] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A context in which layers, and all derivatives that are asked for, are watched."""
        handles = [layer.register_forward_hook(self._layer_hook) for layer in self.layers]
        engine = torch.autograd.backward, torch.autograd.grad
        anomaly = torch.autograd.set_detect_anomaly(True, check_nan=False)
        try:
            with anomaly:
                torch.autograd.backward = self._through(engine[0])
                torch.autograd.grad = self._through(engine[1])
                yield
        finally:
            torch.autograd.backward, torch.autograd.grad = engine
            for handle in handles:
                handle.remove()

    def _through(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of autograd, with hooks on the graph of what it differentiates."""

        def hooked(outputs: Any, *rest: Any, **named: Any) -> Any:
            for tensor in [outputs] if isinstance(outputs, Tensor) else outputs:
                self.tag(tensor, None)
            return function(outputs, *rest, **named)

        return hooked

    def seen(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Notes a step's results: their graph belongs to this step, their adjoints are kept."""
        for name, tensor in tensors.items():
            if tensor.requires_grad:
                self.tag(tensor, step)
                if name == ACTION or name.startswith("next "):
                    add_hook(tensor, self._adjoint_hook(name, step))

    def tag(self, tensor: Tensor, step: int | None) -> None:
        """Puts hooks on the nodes of a graph that have none yet; they belong to this step."""
        stack = [tensor.grad_fn]
        while stack:
            node = stack.pop()
            if node is None or node in self._steps:
                continue
            self._steps[node] = step
            if "AccumulateGrad" not in node.name():
                node.register_hook(self._node_hook(node, step))
            stack += [following for following, _ in node.next_functions]

    def _adjoint_hook(self, name: str, step: int) -> Callable[[Tensor], None]:
        def keep(adjoint: Tensor) -> None:
            self.adjoints.setdefault(name, {})[step] = adjoint.detach().clone()

        return keep

    def _node_hook(self, node: Any, step: int | None) -> Callable[..., None]:
        def check(given: Sequence[Tensor | None], received: Sequence[Tensor | None]) -> None:
            if self.origin is not None or any(not finite(x) for x in received):
                return
            for tensor in given:
                if tensor is not None and not finite(tensor):
                    at, env_index = self.address(tensor)
                    line = code_line(node.metadata.get("traceback_", ()))
                    step_of = at if step is None else step
                    self.origin = Origin(
                        False, node.name(), step_of, env_index, line, bad_number(tensor)
                    )
                    return

        return check

    def _layer_hook(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if layer is self.outputs and output.requires_grad:
            add_hook(output, self._output_hook)
        given = [x for x in inputs if isinstance(x, Tensor)]
        if self.forward_origin is None and not finite(output) and all(map(finite, given)):
            step, env_index = self.address(output)
            self.forward_origin = Origin(
                True, self.layers[layer], step, env_index, "", bad_number(output)
            )

    def _output_hook(self, gradient: Tensor) -> None:
        if gradient.shape[:2] == (self.num_steps, self.num_envs):
            self.by_output.append(gradient.detach().clone())

    def address(self, tensor: Tensor) -> tuple[int | None, int | None]:
        """Step and environment of the last entry that is not finite, as far as the shape tells.

        Derivatives are computed backwards in time, so the latest step is the first.
        """
        bad = (~torch.isfinite(tensor)).nonzero()
        shape = tuple(tensor.shape)
        if shape[:2] == (self.num_steps, self.num_envs):
            step = int(bad[:, 0].max())
            return step, int(bad[bad[:, 0] == step][0, 1])
        if shape[:1] == (self.num_envs,):
            return None, int(bad[0, 0])
        return None, None


def add_hook(tensor: Tensor, hook: Callable[[Tensor], None]) -> None:
    """Calls the hook with the derivative by the tensor."""
    tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def finite(tensor: Tensor | None) -> bool:
    """Whether a tensor is None, of whole numbers, or finite throughout."""
    return tensor is None or not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def bad_number(tensor: Tensor) -> float:
    """The first number that is not finite."""
    flat = tensor.detach().flatten()
    return float(flat[~torch.isfinite(flat)][0])


def code_line(frames: Sequence[str]) -> str:
    """``file.py:12: code`` of the innermost frame outside of torch and of the rollouts."""
    for frame in reversed(frames):
        place, _, code = frame.strip().partition("\n")
        if not any(own in place for own in OWN) and place.startswith('File "'):
            file, _, rest = place.removeprefix('File "').partition('", line ')
            number = rest.partition(",")[0]
            return f"{file.rpartition('/')[2]}:{number}: {code.strip().splitlines()[0]}"
    return ""
