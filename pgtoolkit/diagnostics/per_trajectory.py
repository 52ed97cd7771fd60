"""Exact per-trajectory gradients: the gradient of each entry of a surrogate ``[N]``.

While a surrogate is computed, :class:`GradientRecorder` records the input and the output of each
layer. One backward pass then gives the derivative by each output, and a layer's gradient per
trajectory is a product of input and derivative, summed over time: for ``y = W x``,
``g_i = sum_l delta_{l,i} x_{l,i}^T``. This is the arithmetic of the ordinary weight gradient,
without its sum over trajectories, so it costs about as much as an ordinary backward pass. If a
layer is called ``T`` times, as in back-propagation through time, its calls are summed.

The gradients of parameters in other kinds of modules are computed by one backward pass per
trajectory, batched by vmap.

A recorder checks its own assumptions by two more backward passes, of half of the trajectories each.
The derivative by a layer's output must be 0 in the rows of the other half: otherwise trajectories
are mixed, or they are on another axis. And the layers' gradients must add up to the ordinary
gradient: a parameter for which they do not is used outside its layer too, and goes the general way.
The passes are made when calls of a new kind are first recorded, and not at every measurement.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pgtoolkit.diagnostics.outer_products import OuterProducts, SampleGradient, dense
from pgtoolkit.errors import RequestError
from pgtoolkit.networks.encoder import Convolution
from pgtoolkit.networks.mlp import StateIndependentStd
from pgtoolkit.shapes import check_shape

Gradients = dict[str, Tensor]
"""``{parameter name: [N, *shape]}``: a gradient for every trajectory."""

Surrogate = Callable[[], Tensor]
"""Computes a surrogate ``[N]`` by calling the policy."""

SampleGradients = Mapping[str, SampleGradient]
"""As :data:`Gradients`, where a weight's may be given by its factors."""

LayerRule = Callable[[nn.Module, Tensor, Tensor], dict[str, SampleGradient]]
"""Maps a layer, its inputs ``[L, N, in]`` and the derivatives by its outputs ``[L, N, out]`` to the
gradients of its parameters ``{name: [N, *shape]}``, summed over ``L``."""


def _linear(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, SampleGradient]:
    """Gradients of weight ``[N, out, in]``, as factors if ``L`` is 1, and bias ``[N, out]``."""
    product: SampleGradient
    if len(inputs) == 1:
        product = OuterProducts(delta[0], inputs[0])
    # bmm is several times faster if its result has more columns than rows.
    elif inputs.shape[-1] < delta.shape[-1]:
        product = torch.bmm(inputs.permute(1, 2, 0), delta.transpose(0, 1)).transpose(1, 2)
    else:
        product = torch.bmm(delta.permute(1, 2, 0), inputs.transpose(0, 1))
    gradients: dict[str, SampleGradient] = {"weight": product}
    if layer.bias is not None:
        gradients["bias"] = delta.sum(0)
    return gradients


def _layer_norm(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, SampleGradient]:
    assert isinstance(layer, nn.LayerNorm)
    standardised = nn.functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
    gradients = {"weight": (delta * standardised).sum(0), "bias": delta.sum(0)}
    return {leaf: g for leaf, g in gradients.items() if getattr(layer, leaf) is not None}


def _state_independent_std(
    layer: nn.Module, inputs: Tensor, delta: Tensor
) -> dict[str, SampleGradient]:
    return {"log_std": delta.sum(0)}


def _convolution(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, SampleGradient]:
    """Gradients of weight ``[N, F, C, k, k]`` and bias ``[N, F]``.

    Args:
        layer: a convolution of ``C`` channels to ``F`` with kernels of ``k x k``.
        inputs: ``[L, N, C H W]``.
        delta: ``[L, N, F h w]``.
    """
    assert isinstance(layer, Convolution)
    delta = delta.reshape(*delta.shape[:-1], layer.output_shape[0], -1)
    weight = torch.einsum("lnfp,lncp->nfc", delta, layer.patches(inputs))
    return {"weight": weight.view(-1, *layer.weight.shape), "bias": delta.sum((0, -1))}


LAYER_RULES: dict[type[nn.Module], LayerRule] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    StateIndependentStd: _state_independent_std,
    Convolution: _convolution,
}


class Call(NamedTuple):
    """A recorded call of a layer."""

    inputs: Tensor
    output: Tensor
    version: int
    """Version counter of the output at recording time; a change in place increments it."""


CallKind = frozenset[tuple[str, tuple[bool, ...]]]
"""Of each recorded call, the layer, and which axes of its output are as long as there are
trajectories."""


@final
class GradientRecorder:
    """Records the calls of a module's layers, then computes the gradient of every trajectory.

    Use::

        recorder = GradientRecorder(policy)
        with recorder.recording():
            surrogate = pathwise_surrogate(policy, window, weight)     # [N]
        gradients = recorder.per_trajectory(surrogate)                 # {name: [N, *shape]}

    Every tensor that passes through the module must have the trajectories on its last axis but one
    (``[..., N, features]``), and entry ``i`` of the surrogate must depend on trajectory ``i`` only.
    Both are checked at the outputs of the layers that have a rule; mixing that happens before the
    first of them is found only where it is a BatchNorm's. A weight that is also used outside its
    layer (``F.linear(x, layer.weight)``) is found, and its gradient computed the general way.

    Attributes:
        ruled: the layers that have a rule, by their prefix in the module.
        calls: their recorded calls, by the same prefix.
        batch_norms: prefixes of the BatchNorms that were called and used the batch's statistics.
        elsewhere: the names of the parameters that are used outside their layers, for each kind of
            calls that has been checked.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.ruled: dict[str, nn.Module] = {}
        self.calls: dict[str, list[Call]] = {}
        self.batch_norms: list[str] = []
        self.elsewhere: dict[CallKind, frozenset[str]] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """A context in which inputs and outputs of the layers that have a rule are recorded."""
        self.forget()
        self.ruled = {p: layer for p, layer in self.module.named_modules() if _has_rule(layer)}
        handles = [
            layer.register_forward_hook(self._hook(prefix)) for prefix, layer in self.ruled.items()
        ]
        handles += [
            layer.register_forward_hook(self._batch_norm_hook(prefix))
            for prefix, layer in self.module.named_modules()
            if isinstance(layer, _BatchNorm)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, prefix: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # Returns None, because the result of a forward hook would replace the output.
            if output.requires_grad:
                call = Call(inputs[0].detach(), output, output._version)
                self.calls.setdefault(prefix, []).append(call)

        return record

    def _batch_norm_hook(self, prefix: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert isinstance(layer, _BatchNorm)
            if layer.training or layer.running_mean is None:
                self.batch_norms.append(prefix)

        return record

    def forget(self) -> None:
        """Forgets the recorded calls and their graph; what has been checked is kept."""
        self.calls, self.batch_norms = {}, []

    def per_trajectory(self, surrogate: Tensor, *, retain_graph: bool = False) -> dict[str, Tensor]:
        """The gradient of each entry of ``surrogate`` ``[N]``: ``{parameter name: [N, *shape]}``.

        Its mean over trajectories is the gradient of ``surrogate.mean()``. The arguments are those
        of :meth:`factors`, which is faster where only statistics are needed.
        """
        found = self.factors(surrogate, retain_graph=retain_graph)
        return {name: dense(gradient) for name, gradient in found.items()}

    def factors(self, surrogate: Tensor, *, retain_graph: bool = False) -> SampleGradients:
        """The gradient of each entry of ``surrogate`` ``[N]``: ``{parameter name: [N, *shape]}``.

        A weight's is given by its factors, where its layer was called once on ``[N, features]``.

        Args:
            surrogate: ``[N]``, computed inside :meth:`recording`.
            retain_graph: keep the graph for another surrogate of the same forward pass.

        Raises:
            RequestError: trajectories are mixed, or are not on the last axis but one of a layer's
                output, or a recorded output was changed in place; the graph is kept.
        """
        check_shape("surrogate", surrogate, None)
        size, outputs = surrogate.shape[0], self.outputs
        elsewhere = self.used_elsewhere(surrogate)
        gradients: dict[str, SampleGradient] = {}
        gradients |= per_sample_gradients(surrogate, self.without_rule() | elsewhere)
        deltas: Sequence[Tensor | None] = ()
        if outputs:
            deltas = torch.autograd.grad(
                surrogate.sum(), outputs, retain_graph=retain_graph, allow_unused=True
            )
        by_id = self._by_rule(deltas, size)
        for name, parameter in self.module.named_parameters():
            if parameter.requires_grad and name not in gradients:
                found = by_id.get(id(parameter))
                if found is None:
                    found = parameter.new_zeros(size, *parameter.shape)
                gradients[name] = found
        return gradients

    @property
    def outputs(self) -> list[Tensor]:
        """The outputs of all recorded calls, layer by layer."""
        return [call.output for calls in self.calls.values() for call in calls]

    def _by_rule(self, deltas: Sequence[Tensor | None], size: int) -> dict[int, SampleGradient]:
        """The layers' gradients by their rules: ``{id of the parameter: [N, *shape]}``.

        Args:
            deltas: the derivative by each of :attr:`outputs`; None where there is none.
            size: ``N``.
        """
        remaining = iter(deltas)
        by_id: dict[int, SampleGradient] = {}
        for prefix, calls in self.calls.items():
            layer = self.ruled[prefix]
            called = zip(calls, remaining, strict=False)
            pairs = [(call.inputs, delta) for call, delta in called if delta is not None]
            if not pairs:
                continue
            inputs = _joined([_flatten(x, size) for x, _ in pairs])
            delta = _joined([_flatten(d, size) for _, d in pairs])
            for leaf, gradient in LAYER_RULES[type(layer)](layer, inputs, delta).items():
                key = id(getattr(layer, leaf))
                by_id[key] = dense(by_id[key]) + dense(gradient) if key in by_id else gradient
        return by_id

    def used_elsewhere(self, surrogate: Tensor) -> dict[str, nn.Parameter]:
        """The parameters whose layers' gradients do not add up to the ordinary one, by name.

        They are used outside their layers as well. Costs two backward passes where the recorded
        calls are of a kind that has not been checked before.

        Args:
            surrogate: ``[N]``; its graph is kept.

        Raises:
            RequestError: the gradient of an entry of the surrogate is not that of one trajectory.
        """
        size = surrogate.shape[0]
        self._require_rows(size)
        kind = frozenset(
            (p, _axes(c.output, size)) for p, calls in self.calls.items() for c in calls
        )
        if kind not in self.elsewhere and surrogate.requires_grad:
            names = self._check(surrogate)
            if names is None:
                return {}
            self.elsewhere[kind] = names
        found = self.elsewhere.get(kind, frozenset())
        return {name: p for name, p in self.module.named_parameters() if name in found}

    def _require_rows(self, size: int) -> None:
        """Raises where the recorded calls alone show that there is no gradient per trajectory."""
        if self.batch_norms:
            raise RequestError(
                f"no gradient belongs to one trajectory: the BatchNorm {self.batch_norms[0]!r} "
                "mixes trajectories by the batch's statistics. Use LayerNorm, or put the BatchNorm "
                "into evaluation mode (eval())"
            )
        for prefix, calls in self.calls.items():
            if any(call.output._version != call.version for call in calls):
                raise RequestError(
                    f"the output of the layer {prefix!r} was changed in place after it was "
                    "recorded (an activation with inplace=True?), and its gradient with it: use "
                    "the activation without inplace"
                )
            for shape in (x.shape for call in calls for x in (call.inputs, call.output)):
                if len(shape) < 2 or shape[-2] != size:
                    raise RequestError(
                        f"the layer {prefix!r} saw {list(shape)}, whose last axis but one is not "
                        f"the surrogate's {size} trajectories: give the module [..., N, features]"
                    )

    def _check(self, surrogate: Tensor) -> frozenset[str] | None:
        """Makes the check of :meth:`used_elsewhere`; None where a derivative is not finite."""
        parameters = {n: p for n, p in self.module.named_parameters() if p.requires_grad}
        if not parameters:
            return frozenset()
        general, names = self.without_rule(), set[str]()
        half = _half(len(surrogate)).to(surrogate.device)
        for rows in (half, ~half):
            found = torch.autograd.grad(
                surrogate,
                [*self.outputs, *parameters.values()],
                grad_outputs=rows.to(surrogate.dtype),
                retain_graph=True,
                allow_unused=True,
            )
            if not all(bool(x.isfinite().all()) for x in found if x is not None):
                return None
            deltas, gradients = found[: -len(parameters)], found[-len(parameters) :]
            self._require_separate(deltas, ~rows)
            by_id = self._by_rule(deltas, len(surrogate))
            names |= {
                name
                for (name, p), gradient in zip(parameters.items(), gradients, strict=True)
                if name not in general and not _adds_up(by_id.get(id(p)), gradient)
            }
        return frozenset(names)

    def _require_separate(self, deltas: Sequence[Tensor | None], others: Tensor) -> None:
        """Raises if a derivative of one half's surrogate is not 0 in the rows of the ``others``."""
        prefixes = [prefix for prefix, calls in self.calls.items() for _ in calls]
        for prefix, delta in zip(prefixes, deltas, strict=True):
            if delta is not None and bool((delta[..., others, :] != 0).any()):
                raise RequestError(
                    f"no gradient belongs to one trajectory: entry i of the surrogate depends on "
                    f"more than row i of the output of the layer {prefix!r}. Either the module "
                    "mixes trajectories there (a mean over the batch, attention), or they are not "
                    "on the last axis but one: give the module [..., N, features], and let it "
                    "treat every row by itself"
                )

    def without_rule(self) -> dict[str, nn.Parameter]:
        """Parameters of modules without a rule; some may be shared with a layer that has one."""
        without = {
            id(parameter)
            for prefix, layer in self.module.named_modules()
            if prefix not in self.ruled
            for parameter in layer.parameters(recurse=False)
        }
        named = self.module.named_parameters()
        return {name: p for name, p in named if p.requires_grad and id(p) in without}


def _has_rule(layer: nn.Module) -> bool:
    """Whether :data:`LAYER_RULES` gives all gradients of the layer's own parameters."""
    # The type must match exactly, because a subclass may compute something else. Extra parameters
    # are excluded: old-style weight or spectral normalisation and pruning replace a parameter by a
    # tensor that is computed from others.
    own = dict(layer.named_parameters(recurse=False))
    return (
        type(layer) in LAYER_RULES
        and all(p.requires_grad for p in own.values())
        and own.keys() <= {"weight", "bias", "log_std"}
    )


def _half(size: int) -> Tensor:
    """Bools ``[N]`` of which half are true, always the same, without a pattern."""
    half = torch.zeros(size, dtype=torch.bool)
    half[torch.randperm(size, generator=torch.Generator().manual_seed(0))[: (size + 1) // 2]] = True
    return half


def _axes(tensor: Tensor, size: int) -> tuple[bool, ...]:
    """For each axis, whether it is as long as there are trajectories."""
    return tuple(length == size for length in tensor.shape)


def _adds_up(found: SampleGradient | None, gradient: Tensor | None) -> bool:
    """Whether gradients ``[N, *shape]`` sum to a gradient ``[*shape]``, up to rounding.

    The tolerance is relative to the sum of the ``N`` norms, because the terms may cancel. A wrong
    "no" costs time and no accuracy.
    """
    if found is None or gradient is None:
        return gradient is None or not bool(gradient.any())
    by_rule = dense(found)
    tolerance = 4 * torch.finfo(gradient.dtype).eps ** 0.5
    scale = torch.linalg.vector_norm(by_rule.flatten(1), dim=1).sum()
    return bool(torch.linalg.vector_norm(by_rule.sum(0) - gradient) <= tolerance * scale)


def _flatten(tensor: Tensor, size: int) -> Tensor:
    """``[..., N, features]`` to ``[L, N, features]``."""
    return tensor.reshape(-1, size, tensor.shape[-1])


def _joined(calls: list[Tensor]) -> Tensor:
    """Concatenates ``[L, N, features]`` along ``L``; a single tensor is returned without a copy."""
    return calls[0] if len(calls) == 1 else torch.cat(calls)


def per_trajectory_gradients(module: nn.Module, surrogate: Surrogate) -> Gradients:
    """The gradient of each entry of a surrogate: ``{parameter name: [N, *shape]}``.

    Args:
        module: its parameters' gradients are computed.
        surrogate: computes ``[N]`` by calling the module, as :class:`GradientRecorder` requires.

    Raises:
        RequestError: the gradient of an entry of the surrogate is not that of one trajectory.
    """
    recorder = GradientRecorder(module)
    with recorder.recording():
        values = surrogate()
    return recorder.per_trajectory(values)


def per_sample_gradients(
    surrogate: Tensor, parameters: Mapping[str, Tensor], *, chunk: int = 256
) -> dict[str, Tensor]:
    """The gradient of each entry of ``surrogate`` ``[N]``: ``{name: [N, *shape]}``, for any graph.

    It takes ``N`` vector-Jacobian products, batched by vmap, ``chunk`` at a time. The cost grows
    with ``N^2``. The graph is kept. For networks :class:`GradientRecorder` is faster. For the
    parameters of a distribution, give each sample its own copy (``mean.expand(N, A)``): then one
    backward pass of the sum gives all gradients.

    Args:
        surrogate: ``[N]``.
        parameters: tensors of its graph, by names of your choice. The gradient of a tensor that the
            surrogate does not use is zero.
        chunk: products at a time; memory is ``chunk`` times that of one backward pass.
    """
    check_shape("surrogate", surrogate, None)
    if not parameters:
        return {}
    size, leaves = surrogate.shape[0], list(parameters.values())
    parts: list[list[Tensor]] = [[] for _ in leaves]
    for start in range(0, size, chunk):
        rows = torch.arange(start, min(start + chunk, size), device=surrogate.device)
        unit = torch.nn.functional.one_hot(rows, size).to(surrogate)
        found = torch.autograd.grad(
            surrogate,
            leaves,
            grad_outputs=unit,
            is_grads_batched=True,
            retain_graph=True,
            allow_unused=True,
        )
        for part, leaf, gradient in zip(parts, leaves, found, strict=True):
            zeros = leaf.new_zeros(len(rows), *leaf.shape)
            part.append(zeros if gradient is None else gradient)
    return {name: torch.cat(part) for name, part in zip(parameters, parts, strict=True)}
