"""Turning a user's numbers, lists and arrays into the matrices of a linear-quadratic system."""

import torch
from torch import Tensor

from pgtoolkit.envs.analytic.lqg.cost import LinearQuadratic
from pgtoolkit.errors import RequestError


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
    """The system in float64, after its checks. ``B`` says how many states and actions there are.

    Raises:
        RequestError: an argument is not what :class:`pgtoolkit.envs.analytic.lqg.env.LQG` says it
        must be.
    """
    if int(horizon) != horizon or horizon < 1:
        raise RequestError(f"LQG's horizon is {horizon}: it must be an integer, at least 1")
    if not 0 < gamma <= 1:
        raise RequestError(f"LQG's gamma is {gamma}: it must be above 0 and at most 1")
    a, b = _two_dimensional("A", A), _two_dimensional("B", B)
    n, m = b.shape
    return LinearQuadratic(
        A=shaped("A", a, (n, n)),
        B=b,
        Q=_covariance("Q", Q, n),
        R=_covariance("R", R, m),
        Qf=_covariance("Qf", Qf, n),
        m0=shaped("m0", m0, (n,), spread=True),
        P0=_covariance("P0", P0, n),
        W=_covariance("W", W, n),
        horizon=int(horizon),
        gamma=float(gamma),
    )


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


def _two_dimensional(name: str, value: object) -> Tensor:
    tensor = _float64(name, value)
    tensor = tensor.reshape(1, 1) if tensor.dim() == 0 else tensor
    if tensor.dim() != 2:
        raise RequestError(
            f"LQG's {name} has shape {list(tensor.shape)}: give a scalar, or a matrix as a list of "
            "rows"
        )
    return tensor


def shaped(name: str, value: object, shape: tuple[int, ...], *, spread: bool = False) -> Tensor:
    """The value in that shape. A scalar is in it if the shape is all ones, or if it may spread.

    Raises:
        RequestError: it is in another.
    """
    tensor = _float64(name, value)
    if tensor.dim() == 0 and (spread or all(size == 1 for size in shape)):
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
    tensor = shaped(name, tensor, (size, size))
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
