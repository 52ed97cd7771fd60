"""How strongly a policy and its closed loop amplify: why a pathwise gradient explodes."""

import torch
from torch import Tensor

from pgtoolkit.policies.policy import Policy
from pgtoolkit.shapes import check_shape


def policy_gain(policy: Policy, obs: Tensor, valid: Tensor) -> Tensor | None:
    """The largest singular value of ``dmu/ds`` over a window, a scalar.

    ``mu`` is the Gaussian mean before squashing, and ``s`` the observation before it is normalised.
    A gain that is far above that of the task makes the closed loop chatter: a small error of the
    state becomes a full action against it.

    Args:
        policy: its Jacobian is taken at every observation, one backward pass for each dimension of
            the action.
        obs: ``[T, N, O]``.
        valid: ``[T, N]`` bool, the steps that count.

    Returns:
        The gain; None if the policy has no Gaussian mean, or observations are not vectors of
        floating-point numbers.
    """
    if obs.dim() != 3 or not obs.is_floating_point() or not bool(valid.any()):
        return None
    inputs = obs.detach()[valid].requires_grad_()
    with torch.enable_grad():
        gaussian = policy(inputs).gaussian
        if gaussian is None:
            return None
        rows = [
            torch.autograd.grad(one, inputs, retain_graph=True)[0] for one in gaussian.mean.sum(0)
        ]
    jacobian = torch.stack(rows, 1)
    largest: Tensor = torch.linalg.eigvalsh(jacobian @ jacobian.mT)[:, -1].amax()
    return largest.clamp_min(0).sqrt()


def adjoint_growth(action_gradient: Tensor, valid: Tensor) -> Tensor | None:
    """The factor by which ``|dJ/du_t|`` grows for each step backwards in time, a scalar.

    It is ``exp(-b)``, with ``b`` the slope of the least-squares line through ``log rms_i
    |dJ/du_{t,i}|`` over the steps ``t`` of the window. Above 1, actions at the start of the window
    have the larger derivative: the closed loop amplifies what they do. The variance of the pathwise
    gradient then grows with twice that exponent and the number of steps.

    Args:
        action_gradient: ``dJ/du`` ``[T, N, A]``.
        valid: ``[T, N]`` bool, the steps that count.

    Returns:
        The factor; None if fewer than two steps have a derivative other than 0.
    """
    check_shape("action_gradient", action_gradient, *valid.shape, None)
    squares = torch.where(valid, action_gradient.double().square().sum(-1), 0.0).sum(1)
    count = valid.sum(1)
    steps = (squares > 0).nonzero().squeeze(1)
    if len(steps) < 2:
        return None
    level = 0.5 * (squares[steps] / count[steps]).log()
    time = steps.double() - steps.double().mean()
    return (-(time @ level) / time.square().sum()).exp()
