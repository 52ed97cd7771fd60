"""Arguments of ``python scripts/variational_inference.py``. Imports no torch."""

import dataclasses
from pathlib import Path
from typing import Literal, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import require_options

NUM_CHAINS = 32
"""Chains of the Hamiltonian Monte Carlo reference."""

MIN_DRAWS_PER_CHAIN = 4
"""Fewest draws of each chain for which split R-hat can be computed."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VariationalArguments:
    """Variational Bayesian logistic regression on scikit-learn's breast cancer data.

    The prior of all weights is N(0, 1), on standardised features.
    """

    estimator: Literal["pathwise", "score_function", "measure_valued"] = "pathwise"
    """The gradient estimator of the updates. measure_valued needs --family diagonal, and evaluates
    the model 125 times as often: give it fewer samples (--num-samples 32 --steps 2000
    --learning-rate 0.02)."""
    family: Literal["diagonal", "full"] = "diagonal"
    """The covariance of q. diagonal: mean-field, independent weights; full: correlated weights."""
    num_samples: int = 128
    """Number of samples of q in each step."""
    steps: int = 4000
    """Number of steps of Adam."""
    learning_rate: float = 0.01
    """Adam's learning rate at the first step; it falls linearly to a hundredth of that."""
    measurement_interval: int = 40
    """Number of steps between measurements of the gradients' variance; 0 never measures."""
    reference_samples: int = 8000
    """Number of draws from the posterior itself with which q is compared."""
    seed: int = 0
    """Seed of all random numbers."""
    threads: int = 1
    """Number of CPU threads that torch uses."""
    run_dir: Path | None = None
    """The run's folder. Default: runs/breast-cancer-FAMILY__ESTIMATOR__SEED__TIME."""

    def __post_init__(self) -> None:
        min_draws = MIN_DRAWS_PER_CHAIN * NUM_CHAINS
        conditions = {
            "num_samples": (self.num_samples >= 3, "at least 3"),
            "steps": (self.steps >= 1, "at least 1"),
            "learning_rate": (0 < self.learning_rate < float("inf"), "above 0"),
            "measurement_interval": (self.measurement_interval >= 0, "at least 0"),
            "reference_samples": (self.reference_samples >= min_draws, f"at least {min_draws}"),
            "seed": (self.seed >= 0, "at least 0"),
            "threads": (self.threads >= 1, "at least 1"),
        }
        require_options(self, conditions)
        if self.estimator == "measure_valued" and self.family == "full":
            raise RequestError(
                "measure-valued derivatives exist for independent dimensions only: use "
                "--family diagonal, or another --estimator"
            )
