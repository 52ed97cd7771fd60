"""Equal random numbers on every device."""

import contextlib
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CPU_GENERATOR = torch.Generator
FACTORIES = (torch.randn, torch.rand, torch.randint, torch.randperm)
IN_PLACE = (
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.exponential_,
    Tensor.random_,
    Tensor.bernoulli_,
)
OTHERS = (torch.multinomial, torch.bernoulli, torch.normal)
DEVICES: dict[int, torch.device] = {}
"""Address of a :class:`LabelledGenerator` to its device. Torch wraps a generator anew for each
operation, so that an attribute would be lost."""


class LabelledGenerator(CPU_GENERATOR):
    """A generator of the processor that says it is of another device."""

    def __new__(cls, device: torch.device | str = "cpu") -> "LabelledGenerator":
        made = super().__new__(cls)
        DEVICES[address_of(made)] = torch.device(device)
        return made

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICES[address_of(self)]


def address_of(generator: Any) -> int:
    address: int = generator._cdata
    return address


@contextlib.contextmanager
def labelled_generators() -> Iterator[None]:
    """Inside it, ``torch.Generator(device)`` is a :class:`LabelledGenerator`."""
    before = torch.Generator
    torch.Generator = LabelledGenerator  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        torch.Generator = before  # type: ignore[misc]


@final
class SameDraws(TorchFunctionMode):
    """Draws from a labelled generator on the processor and moves the numbers to its device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        generator = kwargs.get("generator")
        if generator is None or generator.device.type == "cpu":
            return func(*args, **kwargs)
        plain = LabelledGenerator("cpu")
        plain.set_state(generator.get_state())
        there, kwargs = generator.device, kwargs | {"generator": plain}
        if func in FACTORIES:
            assert torch.device(kwargs["device"]).type == there.type
            drawn = func(*args, **kwargs | {"device": "cpu"})
        elif func in IN_PLACE:
            drawn = func(torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:], **kwargs)
        elif func in OTHERS:
            drawn = func(*(x.cpu() if isinstance(x, Tensor) else x for x in args), **kwargs)
        else:
            raise NotImplementedError(f"{func} draws from a generator: add it to SameDraws")
        generator.set_state(plain.get_state())
        return args[0].copy_(drawn) if func in IN_PLACE else drawn.to(there)


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """Inside it, generators of every device give the numbers that the processor's give for a seed.

    The generators of the processor and of a card give other numbers for one seed. What is trained
    with either can be compared here.
    """
    with labelled_generators(), SameDraws():
        yield
