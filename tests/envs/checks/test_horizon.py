"""Growth of the adjoint, against a closed form."""

import torch

from pgtoolkit.envs.analytic.chaos import Chaos
from pgtoolkit.envs.checks.horizon import adjoint_norms


def test_the_adjoint_grows_as_chaos_does() -> None:
    """``s' = rho s + u``: the adjoint over ``k`` steps is exactly ``rho^k``."""
    norms = adjoint_norms(Chaos(rho=1.3, horizon=12), 0, steps=12, num_envs=5)
    assert norms is not None
    ages = torch.arange(len(norms) - 1, -1, -1).double()
    expected = (1.3**ages)[:, None].expand_as(norms)
    torch.testing.assert_close(norms, expected, rtol=1e-5, atol=0.0)
