"""What variational inference shows: its progress, and how far q is from the posterior."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from pgtoolkit.scripts.cli.files import short
from pgtoolkit.scripts.cli.progress import SECONDS_BETWEEN_LINES, BarView

if TYPE_CHECKING:
    from pgtoolkit.scripts.variational.elbo import ElboAscent
    from pgtoolkit.scripts.variational.posterior import Chains


ESTIMATORS = ("score_function", "pathwise", "measure_valued")

R_HAT_LIMIT = 1.01

FAR = 0.5
"""Posterior standard deviations by which no mean of a fitted q is off: the best mean-field one is
off by 0.2."""


@final
class AscentView(BarView):
    """A bar on a terminal, plain lines elsewhere. Use as a context manager."""

    def __init__(self, steps: int) -> None:
        super().__init__("fitting", steps)
        self.steps, self._last_line = steps, 0.0

    def update(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the step, the ELBO and the variances that were measured last."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, description=describe(scalars))
        elif step == self.steps or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(f"{step}/{self.steps} steps  {describe(scalars)}", flush=True)


def describe(scalars: Mapping[str, float]) -> str:
    """``ELBO -67.5  score function variance 1,230  pathwise variance 12.3``."""
    parts = []
    if "variational/elbo" in scalars:
        parts.append(f"ELBO {scalars['variational/elbo']:.2f}")
    for name in ESTIMATORS:
        variance = scalars.get(f"gradient/{name}/variance")
        if variance is not None:
            parts.append(f"{name.replace('_', ' ')} variance {short(variance)}")
    return "  ".join(parts) or "fitting"


def comparison(ascent: "ElboAscent", chains: "Chains", names: Sequence[str]) -> dict[str, Any]:
    """How far ``q`` is from the posterior, in plain numbers.

    ``shift`` is ``|E_q z - E z| / sd z`` of each weight, ``ratio`` is ``sd_q z / sd z``.
    """
    from pgtoolkit.scripts.variational.elbo import standard_deviations

    q = ascent.distribution
    shift = (q.mean - chains.mean).abs() / chains.std
    ratio = standard_deviations(q) / chains.std
    return {
        "largest_shift": float(shift.max()),
        "largest_shift_of": names[int(shift.argmax())],
        "median_shift": float(shift.median()),
        "smallest_ratio": float(ratio.min()),
        "smallest_ratio_of": names[int(ratio.argmin())],
        "median_ratio": float(ratio.median()),
        "largest_ratio": float(ratio.max()),
        "reference_draws": chains.draws.shape[0] * chains.draws.shape[1],
        "reference_chains": chains.draws.shape[1],
        "reference_r_hat": float(chains.r_hat.max()),
        "reference_acceptance": chains.acceptance,
        "reference_error": float((chains.standard_error / chains.std).max()),
    }


def report(summary: Mapping[str, Any], *, mean_field: bool) -> str:
    """The table, and what it means."""
    lines = [
        "",
        f"reference: {summary['reference_draws']:,} draws by Hamiltonian Monte Carlo, "
        f"{summary['reference_chains']} chains, {summary['reference_acceptance']:.0%} accepted, "
        f"R-hat at most {summary['reference_r_hat']:.3f}; its means are good to "
        f"{summary['reference_error']:.3f} sd",
        "",
        f"{'':<34}{'smallest':>10}{'median':>10}{'largest':>10}",
        f"{'distance of means, in posterior sd':<34}{'':>10}"
        f"{summary['median_shift']:>10.3f}{summary['largest_shift']:>10.3f}"
        f"   largest: {summary['largest_shift_of']}",
        f"{'sd of q over sd of the posterior':<34}"
        f"{summary['smallest_ratio']:>10.3f}{summary['median_ratio']:>10.3f}"
        f"{summary['largest_ratio']:>10.3f}   smallest: {summary['smallest_ratio_of']}",
        "",
        *notes(summary, mean_field=mean_field),
    ]
    return "\n".join(lines)


def notes(summary: Mapping[str, Any], *, mean_field: bool) -> list[str]:
    """Sentences on what the numbers mean."""
    found = [describe(summary)]
    if summary["reference_r_hat"] > R_HAT_LIMIT:
        found.append(
            f"note: R-hat is above {R_HAT_LIMIT}: the chains do not agree yet; raise "
            "--reference-samples before you believe the table"
        )
    if summary["largest_shift"] > FAR:
        found.append(
            f"note: q has not arrived: a mean is more than {FAR} posterior standard deviations "
            "off; give it more --steps, or more --num-samples and a smaller --learning-rate"
        )
    elif mean_field:
        found.append(
            "note: a mean-field q is too narrow: weights that trade off against each other are "
            "wide one by one, and q keeps the spread of each given the others; --family full "
            "follows them"
        )
    return found
