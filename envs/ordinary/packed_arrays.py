"""NumPy arrays in the form that checkpoints hold."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pgtoolkit.errors import RequestError

KINDS = "biufc"
"""Kinds of numbers, by NumPy's letters, whose bytes are stored."""


def pack_array(values: Any) -> dict[str, Any]:
    """An array as its dtype, its shape and its bytes.

    Raises:
        RequestError: it does not consist of numbers.
    """
    array = np.ascontiguousarray(values)
    if array.dtype.kind not in KINDS:
        raise RequestError(f"an array of {array.dtype} cannot be saved: give an array of numbers")
    data = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
    return {"dtype": array.dtype.str, "shape": list(np.shape(values)), "data": data}


def unpack_array(packed: dict[str, Any]) -> NDArray[Any]:
    """The array that :func:`pack_array` packed, with memory of its own.

    Raises:
        RequestError: the parts do not fit each other.
    """
    try:
        dtype = np.dtype(packed["dtype"])
        if dtype.kind not in KINDS:
            raise ValueError(f"dtype {dtype}")
        data = packed["data"].cpu().numpy().astype(np.uint8)
        return np.frombuffer(data.tobytes(), dtype).reshape(packed["shape"]).copy()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RequestError(f"a saved array is damaged ({error}): start a new run") from error
