"""Arguments of ``pgtoolkit variance``. Imports no torch."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.estimators.catalogue import STUDY_ESTIMATORS
from pgtoolkit.limits import MAX_FLOAT, MAX_LAYER, MAX_THREADS
from pgtoolkit.scripts.cli.arguments import require_options
from pgtoolkit.scripts.cli.registry import lookup

MIN_TRAJECTORIES, MAX_TRAJECTORIES = 10, 100_000

MAX_HORIZON = 100_000
"""Steps; a window that is much longer does not fit into memory."""


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceArguments:
    """Measures every gradient estimator at several horizons, and advises which to use.

    At each horizon H, one policy runs N trajectories of H steps from fresh starts, fewer where an
    episode ends before. Each estimator gives every trajectory's gradient of its discounted return
    over these steps, without a value function for what follows. The variance is of the gradient of
    the return itself: it is not divided by H, unlike that of a training run. An environment whose
    constructor has an argument `horizon` is made anew for each H.
    """

    run: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = None
    """A run's folder, which gives the policy, the environment and the discount."""
    env: str | None = None
    """An environment: an id, module:Id-v0, or path/to/file.py:Class, whose module or file is run as
    Python code. With RUN it replaces the run's environment and must have the same spaces."""
    env_kwargs: str | None = None
    """JSON object of arguments for the environment. Default: the run's, if env is the run's."""
    differentiate: Literal["auto", "none", "finite-difference", "mujoco", "model"] | None = None
    """Source of the environment's gradient, as in `pgtoolkit train`; auto uses an adapter
    only if --estimators names one that needs a gradient. Default: the run's, or auto."""
    adapter_kwargs: str | None = None
    """JSON object of arguments for the adapter that --differentiate names or auto tries."""
    gym_wrappers: str | None = None
    """JSON object of Gymnasium's wrappers for an ordinary environment, as in `pgtoolkit train`."""
    wrappers: str | None = None
    """JSON object of wrappers for a differentiable environment, as in `pgtoolkit train`."""
    horizons: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Horizons to measure, in environment steps."""
    trajectories: int = 1000
    """Number of trajectories at each horizon."""
    estimators: tuple[str, ...] = ()
    """Estimators to measure: score_function, pathwise, mixed, critic. Default: all that the
    environment allows, and critic for a run whose agent has a Q function. With the critic the
    objective of all ends with its value of the last state."""
    gamma: float | None = None
    """Discount factor of the return. Default: the run's, or 0.99."""
    seed: int = 0
    """Seed of all random numbers: a fresh policy's weights, start states and action noise."""
    threads: int = 1
    """Number of CPU threads that torch uses."""
    checkpoint: Literal["best", "last"] = "best"
    """The run's checkpoint to measure. best: highest return in the evaluations while training (last
    if there was none); last: end of training."""
    hidden: tuple[int, ...] | None = None
    """Sizes of the hidden layers of the fresh policy used without RUN; no sizes at all make a
    linear policy. Default: 64 64."""
    log_std_init: float | None = None
    """Log standard deviation of the fresh policy used without RUN, before squashing. Default:
    -1."""
    trust: bool = False
    """Run the code that the run's folder names (file.py:Class, module:Id) though it was not trained
    here by you."""
    json: Path | None = None
    """File for the measurements: a JSON list of one object for each estimator and horizon."""
    plot: Path | None = None
    """File for a plot of variance and SNR against horizon: .png, .svg or .pdf (extra `plot`)."""

    def __post_init__(self) -> None:
        horizons, trajectories = self.horizons, self.trajectories
        conditions = {
            "horizons": (
                bool(horizons) and 1 <= min(horizons) <= max(horizons) <= MAX_HORIZON,
                f"numbers of steps, each from 1 to {MAX_HORIZON}",
            ),
            "trajectories": (
                MIN_TRAJECTORIES <= trajectories <= MAX_TRAJECTORIES,
                f"from {MIN_TRAJECTORIES} to {MAX_TRAJECTORIES}",
            ),
            "gamma": (self.gamma is None or 0 <= self.gamma <= 1, "between 0 and 1"),
            "seed": (0 <= self.seed < 2**31, "at least 0 and below 2^31"),
            "threads": (1 <= self.threads <= MAX_THREADS, f"from 1 to {MAX_THREADS:,}"),
            "log_std_init": (
                self.log_std_init is None or abs(self.log_std_init) <= MAX_FLOAT,
                f"a finite number, at most {MAX_FLOAT:g}",
            ),
            "hidden": (
                self.hidden is None or all(1 <= size <= MAX_LAYER for size in self.hidden),
                f"sizes from 1 to {MAX_LAYER:,}",
            ),
        }
        require_options(self, conditions)
        for name in self.estimators:
            lookup(name, dict.fromkeys(STUDY_ESTIMATORS), "estimator")
        if self.run is None and self.env is None:
            raise RequestError(
                "name a run's folder or an environment: pgtoolkit variance RUN, or --env ENV"
            )
        if self.run is not None and (self.hidden, self.log_std_init) != (None, None):
            raise RequestError(
                "--hidden and --log-std-init describe a fresh policy, but RUN already has one: "
                "leave them out, or leave out RUN"
            )
