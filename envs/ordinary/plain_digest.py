"""A hash of plain values, equal in every process: of numbers, texts, arrays and containers."""

import hashlib
from typing import Any

import numpy as np

MAX_DEPTH = 10
"""Containers inside each other that are looked into."""


def plain_digest(value: Any) -> int:
    """A hash of a value, as an int64; 0 where the value is not plain.

    The order of sets and of a dictionary's keys does not matter: that of texts in a set differs
    from process to process.
    """
    text = _canonical(value, MAX_DEPTH)
    if text is None:
        return 0
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _canonical(value: Any, depth: int) -> bytes | None:
    """The value as bytes; None where it, or something in it, is not plain."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return f"{kind.__name__}:{value!r}".encode(errors="backslashreplace")
    if isinstance(value, np.generic):
        return f"{kind.__name__}:".encode() + bytes(value.tobytes())
    if kind is np.ndarray and value.dtype.kind in "biufcSU":
        return f"{value.dtype}{value.shape}:".encode() + bytes(value.tobytes())
    if depth == 0 or kind not in (list, tuple, set, frozenset, dict):
        return None
    if kind is dict:
        entries = [_canonical(pair, depth - 1) for pair in value.items()]
    else:
        entries = [_canonical(entry, depth - 1) for entry in value]
    if any(entry is None for entry in entries):
        return None
    known = [entry for entry in entries if entry is not None]
    ordered = known if kind in (list, tuple) else sorted(known)
    # Lengths before the entries, so that no two values have the same bytes.
    parts = [f"{kind.__name__}{len(ordered)}:".encode()]
    return b"".join(parts + [f"{len(x)}:".encode() + x for x in ordered])
