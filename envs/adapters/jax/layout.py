"""Packs the state of a JAX environment, a tree of arrays, into two flat arrays and back.

Floating-point leaves are packed into ``values`` ``[D]``, which carry the gradient. The bits of
integers, booleans and random keys are packed into 32-bit ``words`` ``[K]``, so that they are never
rounded. The functions are traced by JAX for one environment at a time.
"""

import dataclasses
import math
from typing import Any, NamedTuple, final

from pgtoolkit.envs.registry.registered import import_package
from pgtoolkit.errors import RequestError


def import_jax() -> Any:
    """Imports the optional package ``jax``.

    Raises:
        RequestError: it is not installed.
    """
    return import_package("jax", "a JaxEnvironment")


class Leaf(NamedTuple):
    """One array of the state, and its place in ``values`` or ``words``."""

    name: str
    """The path in the tree, for error messages."""
    shape: tuple[int, ...]
    dtype: Any
    is_float: bool
    """Whether it is packed into ``values``."""
    start: int
    stop: int


@final
@dataclasses.dataclass(frozen=True)
class Layout:
    """How the leaves of a state are packed into ``values`` ``[D]`` and ``words`` ``[K]``."""

    leaves: tuple[Leaf, ...]
    structure: Any
    """JAX's ``PyTreeDef``."""
    observation: Leaf
    reward: Leaf
    done: Leaf

    @property
    def dtype(self) -> Any:
        """The widest dtype of the floating-point leaves."""
        jax = import_jax()
        return jax.numpy.result_type(*(leaf.dtype for leaf in self.leaves if leaf.is_float))

    def pack(self, state: Any, dtype: Any) -> tuple[Any, Any]:
        """Packs a state into ``values`` ``[D]`` of the given dtype and ``words`` ``[K]`` int32."""
        jnp = import_jax().numpy
        values, words = [jnp.zeros(0, dtype)], [jnp.zeros(0, jnp.int32)]
        arrays = self.structure.flatten_up_to(state)
        for leaf, array in zip(self.leaves, arrays, strict=True):
            if leaf.is_float:
                values.append(jnp.asarray(array).astype(dtype).reshape(-1))
            else:
                words.append(_to_words(jnp.asarray(array).astype(leaf.dtype)))
        return jnp.concatenate(values), jnp.concatenate(words)

    def unpack(self, values: Any, words: Any) -> Any:
        """Rebuilds the state, with leaves in the dtypes in which ``reset`` makes them."""
        arrays = [
            values[leaf.start : leaf.stop].reshape(leaf.shape).astype(leaf.dtype)
            if leaf.is_float
            else _from_words(words[leaf.start : leaf.stop], leaf)
            for leaf in self.leaves
        ]
        return self.structure.unflatten(arrays)


def layout_of(state: Any) -> Layout:
    """The layout of states with the structure, shapes and dtypes of this one.

    Args:
        state: a state of one environment, as ``jax.eval_shape`` describes it.

    Raises:
        RequestError: ``obs``, ``reward`` or ``done`` is missing, or is not one array of the
            required dtype and shape.
    """
    jax = import_jax()
    found, structure = jax.tree_util.tree_flatten_with_path(state)
    leaves, ends = [], {True: 0, False: 0}
    for path, array in found:
        is_float = bool(jax.numpy.issubdtype(array.dtype, jax.numpy.floating))
        size = math.prod(array.shape) * (1 if is_float else _words_per_element(array.dtype))
        name = jax.tree_util.keystr(path).lstrip(".")
        start, stop = ends[is_float], ends[is_float] + size
        leaves.append(Leaf(name, tuple(array.shape), array.dtype, is_float, start, stop))
        ends[is_float] = stop
    indices = structure.unflatten(range(len(leaves)))
    obs, reward, done = (_find(state, indices, name, leaves) for name in ("obs", "reward", "done"))
    for leaf in (obs, reward):
        if not leaf.is_float:
            raise RequestError(f"the state's {leaf.name} is {leaf.dtype}: it must be a float")
    for leaf in (reward, done):
        if leaf.shape != ():
            raise RequestError(
                f"the state's {leaf.name} has shape {list(leaf.shape)}: it must be one number, "
                "for reset and step are functions of one environment"
            )
    return Layout(tuple(leaves), structure, obs, reward, done)


def require_matching_layout(layout: Layout, state: Any) -> None:
    """Raises unless the state that ``step`` returns matches the layout of ``reset``'s.

    Raises:
        RequestError: the structure, or the shape or kind of a leaf, differs.
    """
    jax = import_jax()
    arrays, structure = jax.tree_util.tree_flatten(state)
    if structure != layout.structure:
        raise RequestError(
            "step returns a state of another structure than reset, and both must be alike: "
            f"{structure} instead of {layout.structure}"
        )
    for leaf, array in zip(layout.leaves, arrays, strict=True):
        is_float = bool(jax.numpy.issubdtype(array.dtype, jax.numpy.floating))
        if tuple(array.shape) != leaf.shape or is_float != leaf.is_float:
            raise RequestError(
                f"step returns a {leaf.name} of {array.dtype} {list(array.shape)} where reset "
                f"returns {leaf.dtype} {list(leaf.shape)}: make them alike"
            )


def _find(state: Any, indices: Any, name: str, leaves: list[Leaf]) -> Leaf:
    """The leaf that is the attribute ``name``; ``indices`` is the state with numbers as leaves."""
    index = getattr(indices, name, None)
    if isinstance(index, int):
        return leaves[index]
    found = getattr(state, name, None)
    has = "no" if found is None else f"a {type(found).__name__} as its"
    raise RequestError(
        f"the state that reset returns has {has} {name}: it must be a NamedTuple, a dataclass or "
        "the like with the attributes obs, reward and done, each of them one array"
    )


def _key_data_spec(dtype: Any) -> tuple[Any, tuple[int, ...]] | None:
    """The generator and the data shape of a typed random key; None for other dtypes."""
    jax = import_jax()
    if not jax.numpy.issubdtype(dtype, jax.dtypes.prng_key):
        return None
    found: list[Any] = []

    def data(key: Any) -> Any:
        found.append(jax.random.key_impl(key))
        return jax.random.key_data(key)

    shape = jax.eval_shape(data, jax.ShapeDtypeStruct((), dtype)).shape
    return found[0], tuple(shape)


def _words_per_element(dtype: Any) -> int:
    """Number of 32-bit words that hold one number or one random key."""
    key = _key_data_spec(dtype)
    return max(1, int(dtype.itemsize) // 4) if key is None else math.prod(key[1])


def _to_words(array: Any) -> Any:
    """The bits of an array as int32 ``[K]``; numbers below 32 bits are widened."""
    jax = import_jax()
    if _key_data_spec(array.dtype) is not None:
        array = jax.random.key_data(array)
    if array.dtype.itemsize < 4:
        array = array.astype(jax.numpy.int32)
    return jax.lax.bitcast_convert_type(array, jax.numpy.int32).reshape(-1)


def _from_words(words: Any, leaf: Leaf) -> Any:
    """The inverse of :func:`_to_words`."""
    jax = import_jax()
    key = _key_data_spec(leaf.dtype)
    if key is not None:
        impl, tail = key
        data = jax.lax.bitcast_convert_type(words.reshape(*leaf.shape, *tail), jax.numpy.uint32)
        return jax.random.wrap_key_data(data, impl=impl)
    if leaf.dtype.itemsize < 4:
        return words.reshape(leaf.shape).astype(leaf.dtype)
    wide = (2,) if leaf.dtype.itemsize == 8 else ()
    return jax.lax.bitcast_convert_type(words.reshape(*leaf.shape, *wide), leaf.dtype)
