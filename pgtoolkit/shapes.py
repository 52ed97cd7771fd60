"""Checks of tensor shapes: T steps, N environments, O observation and A action dimensions."""

from torch import Tensor


def check_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Raises unless ``tensor`` has exactly this shape; ``None`` stands for any size.

    It catches, for example, ``[N] - [N, 1]``, which would silently broadcast to ``[N, N]``.

    Raises:
        ValueError: names the tensor, the expected shape and the actual one.
    """
    found = tuple(tensor.shape)
    if len(found) != len(shape) or any(
        want is not None and want != have for want, have in zip(shape, found, strict=True)
    ):
        want_text = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape [{want_text}], but has {list(found)}")


def check_same_shape(**tensors: Tensor) -> None:
    """Raises unless all tensors have the shape of the first.

    Raises:
        ValueError: names the tensors and their shapes.
    """
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"these must have the same shape: {shapes}")
