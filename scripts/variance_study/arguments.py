"""``pgtoolkit variance (RUN | --env ENV)``: which gradient estimator, up to which horizon."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, final

import tyro

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.files import (
    listed,
)
from pgtoolkit.scripts.cli.registry import ESTIMATOR_NOTES, known

if TYPE_CHECKING:
    pass


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VarianceArguments:
    """Measures every gradient estimator at several horizons, and says which to use up to which.

    At each horizon H, one policy runs N trajectories of H steps from fresh starts, fewer where an
    episode ends before. Each estimator gives every trajectory's gradient of its discounted return
    over these steps, with no value function beyond. The variance is of the gradient of the return
    itself: it is not divided by H, as that of a training run is. An environment whose constructor
    has an argument `horizon` is made anew for each H.
    """

    run: Annotated[str | None, tyro.conf.Positional] = None
    """A run's folder: its policy, environment and discount."""
    env: str | None = None
    """An environment, in any of the three forms; with RUN, another one with the same spaces."""
    env_kwargs: str | None = None
    """JSON object of arguments for the environment; default: the run's, if env is the run's."""
    differentiate: Literal["auto", "none", "finite-difference", "mujoco", "model"] | None = None
    """The environment's gradient, as in `pgtoolkit train`; auto takes an adapter only if
    --estimators asks for what needs one. Default: the run's, or auto."""
    adapter_kwargs: str | None = None
    """JSON object of arguments for the adapter that --differentiate names."""
    wrappers: str | None = None
    """JSON object of wrappers for a differentiable environment, as in `pgtoolkit train`."""
    horizons: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Steps of a trajectory."""
    trajectories: int = 1000
    """How many at each horizon."""
    estimators: tuple[str, ...] = ()
    """score_function, pathwise, mixed; default: all that the environment allows."""
    gamma: float | None = None
    """Discount; default: the run's, or 0.99."""
    seed: int = 0
    """Of everything random."""
    threads: int = 1
    """CPU threads of torch."""
    checkpoint: Literal["best", "last"] = "best"
    """Of the run. best: of the evaluations while training (last, if there was none); last: at the
    end."""
    hidden: tuple[int, ...] | None = None
    """Hidden layers of the fresh policy that --env gets without RUN (none at all is a linear
    policy); default: 64 64."""
    log_std_init: float | None = None
    """Its log-sigma, before squashing; default: -1."""
    json: Path | None = None
    """Write the measurements to this file: a list of one object an estimator and horizon."""
    plot: Path | None = None
    """Draw variance and SNR against horizon: .png, .svg or .pdf (extra `plot`)."""

    def __post_init__(self) -> None:
        horizons = self.horizons
        checks = {
            "horizons": bool(horizons) and 1 <= min(horizons) <= max(horizons) <= LONGEST,
            "trajectories": MIN_TRAJECTORIES <= self.trajectories <= MOST_TRAJECTORIES,
            "gamma": self.gamma is None or 0 <= self.gamma <= 1,
            "seed": 0 <= self.seed < 2**31,
            "threads": self.threads >= 1,
            "log-std-init": self.log_std_init is None or math.isfinite(self.log_std_init),
            "hidden": self.hidden is None or all(size >= 1 for size in self.hidden),
        }
        for name, holds in checks.items():
            if not holds:
                value = getattr(self, name.replace("-", "_"))
                given = listed(value) or "none" if isinstance(value, tuple) else value
                raise RequestError(f"--{name} must be {MUST_BE[name]}, not {given}")
        for name in self.estimators:
            known(name, ESTIMATOR_NOTES, "estimator")
        if self.run is None and self.env is None:
            raise RequestError(
                "name a run's folder or an environment: pgtoolkit variance RUN, or --env ENV"
            )
        if self.run is not None and (self.hidden, self.log_std_init) != (None, None):
            raise RequestError(
                "--hidden and --log-std-init describe a fresh policy, and a run brings its own: "
                "leave them out, or leave out RUN"
            )


MIN_TRAJECTORIES, MOST_TRAJECTORIES = 10, 100_000

LONGEST = 100_000
"""Steps of a horizon: far beyond it a window does not fit into memory."""

MUST_BE = {
    "horizons": f"numbers of steps, each from 1 to {LONGEST}",
    "trajectories": f"from {MIN_TRAJECTORIES} to {MOST_TRAJECTORIES}",
    "gamma": "between 0 and 1",
    "seed": "at least 0 and below 2^31",
    "threads": "at least 1",
    "log-std-init": "a finite number",
    "hidden": "sizes of at least 1",
}
