"""The running mean of a policy's parameters, which changes less from update to update than it."""

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from pgtoolkit.policies.policy import Policy

WARM_UP = 9
"""Updates over which the first policies lose their weight, whatever the decay is."""


def running_average(policy: Policy, decay: float) -> AveragedModel:
    """A copy of the policy whose ``update_parameters(policy)`` makes it the running mean.

    ``mean <- d mean + (1 - d) policy`` with ``d = min(decay, n / (n + 9))`` after ``n`` updates, so
    that a short run is not a mean with its first, untrained policies (Polyak and Juditsky 1992,
    with exponential weights). Buffers, such as the normaliser's, are copied.

    Args:
        policy: is copied, and not changed.
        decay: ``d``, in [0, 1); 0 makes the mean equal to the policy.
    """

    def mean(average: Tensor, now: Tensor, count: Tensor | int) -> Tensor:
        kept = torch.as_tensor(count / (count + WARM_UP), dtype=now.dtype).clamp(max=decay)
        return average.lerp(now, 1 - kept)

    return AveragedModel(policy, avg_fn=mean)
