"""A linear-quadratic system and a linear policy, from a user's numbers, lists and arrays."""

import dataclasses
from typing import NamedTuple, final

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pgtoolkit.envs.arguments import positive_integer
from pgtoolkit.errors import RequestError


@final
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LinearQuadratic:
    """A system ``s' = A s + B u + w``, ``s_0 ~ N(m0, P0)``, ``w ~ N(0, W)``, in float64.

    Its cost is ``sum_t gamma^t (s_t' Q s_t + u_t' R u_t) + gamma^H s_H' Qf s_H``. ``n`` states and
    ``m`` actions.
    """

    A: Tensor
    """``[n, n]``."""
    B: Tensor
    """``[n, m]``."""
    Q: Tensor
    """``[n, n]``."""
    R: Tensor
    """``[m, m]``."""
    Qf: Tensor
    """``[n, n]``."""
    m0: Tensor
    """``[n]``."""
    P0: Tensor
    """``[n, n]``."""
    W: Tensor
    """``[n, n]``."""
    horizon: int
    gamma: float


class LinearPolicy(NamedTuple):
    """``u = K s + k + sigma eps`` with a standard normal ``eps`` ``[m]``, in float64."""

    K: Tensor
    """``[m, n]``."""
    k: Tensor
    """``[m]``."""
    sigma: Tensor
    """``[m]``."""


def make_system(
    A: object,
    B: object,
    Q: object,
    R: object,
    Qf: object,
    m0: object,
    P0: object,
    W: object,
    horizon: int,
    gamma: float,
) -> LinearQuadratic:
    """The system of these arguments. The shape of ``B`` determines ``n`` and ``m``.

    Raises:
        RequestError: an argument is not what :class:`LQG <pgtoolkit.envs.analytic.lqg.env.LQG>`
            requires.
    """
    if not 0 < gamma <= 1:
        raise RequestError(f"LQG's gamma is {gamma}: it must be above 0 and at most 1")
    a, b = _matrix("A", A), _matrix("B", B)
    n, m = b.shape
    return LinearQuadratic(
        A=_of_shape("A", a, (n, n)),
        B=b,
        Q=_covariance("Q", Q, n),
        R=_covariance("R", R, m),
        Qf=_covariance("Qf", Qf, n),
        m0=_of_shape("m0", m0, (n,), broadcast=True),
        P0=_covariance("P0", P0, n),
        W=_covariance("W", W, n),
        horizon=positive_integer("LQG", "horizon", horizon),
        gamma=float(gamma),
    )


def make_policy(
    system: LinearQuadratic, K: ArrayLike, k: ArrayLike, sigma: ArrayLike
) -> LinearPolicy:
    """The policy of these arguments; a scalar ``k`` or ``sigma`` holds for every action.

    Raises:
        RequestError: an argument does not have the shape that fits the system.
    """
    n, m = system.B.shape
    return LinearPolicy(
        _of_shape("K", K, (m, n)),
        _of_shape("k", k, (m,), broadcast=True),
        _of_shape("sigma", sigma, (m,), broadcast=True),
    )


def make_q_error(system: LinearQuadratic, q_error: object) -> Tensor:
    """The symmetric matrix ``[n+1+m, n+1+m]`` of an error of ``Q``; zeros for a scalar 0.

    Raises:
        RequestError: it has another shape or is not symmetric.
    """
    n, m = system.B.shape
    size = n + 1 + m
    matrix = _of_shape("q_error", _float64("q_error", q_error), (size, size), broadcast=True)
    if not bool(torch.allclose(matrix, matrix.T)):
        raise RequestError("LQG's q_error is not symmetric: give (M + M') / 2 instead")
    return (matrix + matrix.T) / 2


def psd_root(matrix: Tensor) -> Tensor:
    """A ``C`` with ``C C' = matrix``, also for a singular matrix, where Cholesky would fail."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root


def _float64(name: str, value: object) -> Tensor:
    try:
        tensor = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"LQG's {name} is not a number, a vector or a matrix: {value}"
        ) from error
    if not bool(torch.isfinite(tensor).all()):
        raise RequestError(f"LQG's {name} is not finite: {value}")
    return tensor


def _matrix(name: str, value: object) -> Tensor:
    """The value with two dimensions; a scalar becomes ``[1, 1]``."""
    tensor = _float64(name, value)
    tensor = tensor.reshape(1, 1) if tensor.dim() == 0 else tensor
    if tensor.dim() != 2:
        raise RequestError(
            f"LQG's {name} has shape {list(tensor.shape)}: give a scalar, or a matrix as a list of "
            "rows"
        )
    return tensor


def _of_shape(
    name: str, value: object, shape: tuple[int, ...], *, broadcast: bool = False
) -> Tensor:
    """The value in this shape. A scalar is accepted for one entry, with ``broadcast`` for more.

    Raises:
        RequestError: it has another shape.
    """
    tensor = _float64(name, value)
    if tensor.dim() == 0 and (broadcast or all(size == 1 for size in shape)):
        return tensor.expand(shape).clone()
    if tuple(tensor.shape) != shape:
        raise RequestError(
            f"LQG's {name} has shape {list(tensor.shape)}, and must have {list(shape)} to fit B"
        )
    return tensor


def _covariance(name: str, value: object, size: int) -> Tensor:
    """A symmetric positive semidefinite ``[size, size]``; a scalar multiplies the identity."""
    tensor = _float64(name, value)
    if tensor.dim() == 0:
        tensor = tensor * torch.eye(size, dtype=torch.float64)
    tensor = _of_shape(name, tensor, (size, size))
    # Rounding makes eigenvalues of a singular matrix slightly negative.
    tolerance = 1e-9 * float(tensor.abs().max())
    if float((tensor - tensor.T).abs().max()) > tolerance:
        raise RequestError(f"LQG's {name} is not symmetric: give (M + M') / 2 instead")
    smallest = float(torch.linalg.eigvalsh(tensor).min())
    if smallest < -tolerance:
        raise RequestError(
            f"LQG's {name} is not positive semidefinite: its smallest eigenvalue is {smallest:.3g}"
        )
    return (tensor + tensor.T) / 2
