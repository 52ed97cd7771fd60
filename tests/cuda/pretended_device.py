"""A pretended card: tensors in the processor's memory that say they are on another device.

A program that mixes devices runs without an error where there is only a processor. Here it raises
an error where CUDA would raise one, although every number is computed on the processor: a tensor of
the pretended card wraps a tensor of the processor, and every operation compares the devices of its
arguments before it runs. The card is registered with torch as a device of its own, so this module
is imported only in a process that is for it.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.cuda.same_draws import DEVICES, address_of, labelled_generators

NAME = "card"
_setup_privateuseone_for_python_backend(NAME)
CARD = torch.device(NAME, 0)
CPU = torch.device("cpu")
AT = torch.ops.aten

MOVES = {
    AT._to_copy.default,
    AT.copy_.default,
    AT._foreach_copy_.default,
    AT._local_scalar_dense.default,
}
"""Operations that read a tensor of one device and write to another."""

INDEXING = {
    AT.index.Tensor,
    AT.index_put.default,
    AT.index_put_.default,
    AT._index_put_impl_.default,
}
"""Operations whose indices may be on the processor although the tensor is on a card."""

STRICT = {
    AT.cat.default,
    AT.stack.default,
    AT.equal.default,
    AT.gather.default,
    AT.index_select.default,
}
"""Operations that take not even a single number from the processor beside a tensor on a card."""


class DeviceMixError(RuntimeError):
    """Tensors of two devices, or a generator of another, in one operation."""


@final
class CardTensor(Tensor):
    """A tensor of the processor, ``bare``, that says it is on the card."""

    bare: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "CardTensor":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CARD,
        )
        made.bare = inner
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"can't convert {CARD} device type tensor to numpy: use .cpu() first")
        if func is Tensor.tolist:
            return args[0].detach().cpu().tolist()
        if func is Tensor.__repr__:
            return f"on the card: {args[0].bare!r}"
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **kwargs or {})
        if func is Tensor.data.__set__:  # type: ignore[attr-defined]
            args[0].bare = args[1].bare
        return found

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


@final
class CardMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sends every operation through :func:`run`, those that make tensors too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the wrapped tensors after a check of the devices.

    Raises:
        DeviceMixError: the devices do not fit.
    """
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    require_one_device(func, args, tensors)
    on_card = result_on_card(func, args, kwargs, tensors)
    require_generator(func, kwargs.get("generator"), on_card)
    bare = tree_map(bare_tensor, kwargs)
    bare.pop("pin_memory", None)
    if bare.get("device") is not None:
        bare["device"] = CPU
    found = func(*tree_map(bare_tensor, list(args)), **bare)
    if torch.Tag.inplace_view in func.tags and on_card:
        with no_dispatch():
            func(*args, **kwargs)  # changes the shape of the wrapper, too
    if not on_card:
        return found
    owners = {id(x.bare): x for x in tensors if isinstance(x, CardTensor)}
    return tree_map_only(Tensor, lambda x: owner_of(x, owners), found)


def owner_of(inner: Tensor, owners: dict[int, CardTensor]) -> CardTensor:
    """The tensor that wraps this one: an operation in place returns its argument."""
    owner = owners.get(id(inner))
    # A wrapper has no bits that say "conjugate" and "negative".
    return CardTensor(inner.resolve_conj().resolve_neg()) if owner is None else owner


def result_on_card(
    func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: Sequence[Tensor]
) -> bool:
    """Whether the operation's results are on the card."""
    if func is AT._local_scalar_dense.default:
        return False
    if func in (AT.copy_.default, AT._foreach_copy_.default):
        target = args[0] if isinstance(args[0], Tensor) else args[0][0]
        return isinstance(target, CardTensor)
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"]).type == NAME
    return any(isinstance(x, CardTensor) for x in tensors)


def require_generator(func: Any, generator: Any, on_card: bool) -> None:
    """Raises unless a generator is of the device on which the numbers are drawn.

    Raises:
        DeviceMixError: it is of another.
    """
    if generator is None:
        return
    its = DEVICES.get(address_of(generator), CPU)
    if (its.type == NAME) is not on_card:
        raise DeviceMixError(f"{func}: a generator of {its} draws for another device")


def require_one_device(func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """Raises unless the tensors are on one device, or the others are numbers of the processor.

    Raises:
        DeviceMixError: they are not.
    """
    others = [x for x in tensors if not isinstance(x, CardTensor)]
    if func in MOVES or not others or len(others) == len(tensors):
        return
    reads_or_writes = func in INDEXING or func._schema.is_mutable
    if reads_or_writes and isinstance(args[0], Tensor) and not isinstance(args[0], CardTensor):
        raise DeviceMixError(f"{func}: a tensor of the processor is indexed or written by the card")
    if func in INDEXING:
        others = [x for x in args[2:] if isinstance(x, Tensor) and not isinstance(x, CardTensor)]
    if any(x.dim() > 0 or func in STRICT for x in others):
        places = [f"{x.device} {list(x.shape)}" for x in tensors]
        raise DeviceMixError(f"{func}: tensors of two devices: {', '.join(places)}")


def bare_tensor(value: Any) -> Any:
    return value.bare if isinstance(value, CardTensor) else value


@contextlib.contextmanager
def pretended_card() -> Iterator[torch.device]:
    """Inside it, tensors and generators can be made for the device that it gives."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor bypasses the mode
    try:
        with labelled_generators(), CardMode():  # type: ignore[no-untyped-call]
            yield CARD
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
