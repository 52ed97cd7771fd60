"""Trees of Python values as flat lists of numbers: the codes of the nodes.

The types are stored too, because they affect results: ``float32 + float`` is rounded to single
precision. Numbers keep their place in the list while the shape of the tree stays, so that a number
can be moved. What is not a number, such as a text or a class, is kept by
:class:`~pgtoolkit.envs.adapters.gymnasium.known_objects.KnownObjects`, and the codes name it.

:mod:`~pgtoolkit.envs.adapters.gymnasium.pytree_writer` writes trees, and
:mod:`~pgtoolkit.envs.adapters.gymnasium.pytree_reader` reads them back.
"""

from typing import Any, NamedTuple, final

import numpy as np

UNSAVED = 0
"""The code of a place whose content is not in a saved state. It is 0, as padding is."""

NONE, BOOL, INT, FLOAT, COMPLEX, BIG_INT, NAME, ABSENT_VALUE = range(1, 9)
SCALAR, ARRAY, RAW_SCALAR, RAW_ARRAY, OBJECT_ARRAY, TENSOR = range(9, 15)
TUPLE, LIST, DICT, SET, FROZENSET, DEQUE, NAMED_TUPLE = range(15, 22)
OBJECT, METHOD, REDUCED, PCG64, KNOWN, SAME, FLOATS, INTS, BYTES = range(22, 31)
VIEW, FORTRAN = range(31, 33)
"""Codes of the kinds of nodes."""

DTYPES: dict[int, np.dtype] = {np.dtype(kind).num: np.dtype(kind) for kind in "?bhilqBHILQefd"}
"""The dtypes whose numbers are stored as they are, by NumPy's number of the dtype."""

FLOAT64_NUM = np.dtype(np.float64).num


@final
class Absent:
    """The type of :data:`ABSENT`."""

    def __deepcopy__(self, memo: Any) -> "Absent":
        return self

    def __reduce__(self) -> str:
        return "ABSENT"


ABSENT = Absent()
"""Stands for an attribute that does not exist at the moment."""


class Numbers(NamedTuple):
    """A flattened tree."""

    codes: tuple[int, ...]
    """Types and shapes of the tree's nodes."""
    values: list[float]
    """The tree's numbers, in the order of the nodes."""
