"""Terminal output of variational inference: progress, and the distance of q from the posterior."""

from collections.abc import Mapping, Sequence
from typing import Any, final

from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.scripts.cli.display.progress import BarView, describe_variances
from pgtoolkit.scripts.variational.elbo import standard_deviations
from pgtoolkit.scripts.variational.posterior import Chains

R_HAT_LIMIT = 1.01

MAX_CONVERGED_SHIFT = 0.5
"""Distance of a mean of q from the posterior's, in posterior standard deviations, above which the
fit has not converged. At the best mean-field q the largest distance is 0.2."""


@final
class FitView(BarView):
    """Progress of the fit: a bar on a terminal, plain lines elsewhere.

    Args:
        steps: planned steps of the optimiser.
    """

    def __init__(self, steps: int) -> None:
        super().__init__("fitting", steps)

    def update(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows the step, the ELBO and the last measured variances.

        Args:
            step: the present one, from 1.
            scalars: the last logged value of every tag.
        """
        self.show(step, describe(scalars), finished=step == self.total)


def describe(scalars: Mapping[str, float]) -> str:
    """``ELBO -67.50  score function variance 1,230  pathwise variance 12.3``."""
    parts = []
    if "variational/elbo" in scalars:
        parts.append(f"ELBO {scalars['variational/elbo']:.2f}")
    return "  ".join([*parts, *describe_variances(scalars)]) or "fitting"


def comparison(
    q: DiagonalGaussian | FullGaussian, chains: Chains, names: Sequence[str]
) -> dict[str, Any]:
    """The distance of ``q`` from the posterior, as plain numbers for ``summary.json``.

    ``shift`` is ``|E_q z - E z| / sd z`` of each weight, ``ratio`` is ``sd_q z / sd z``.

    Args:
        q: the fitted distribution.
        chains: draws from the posterior.
        names: those of the weights.
    """
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
    """The comparison as a table, and notes on what it means.

    Args:
        summary: a result of :func:`comparison`, with the last logged values if there are any.
        mean_field: whether the covariance of ``q`` is diagonal.
    """
    lines = [
        "",
        f"reference: {summary['reference_draws']:,} draws by Hamiltonian Monte Carlo, "
        f"{summary['reference_chains']} chains, {summary['reference_acceptance']:.0%} accepted, "
        f"R-hat at most {summary['reference_r_hat']:.3f}; standard error of its means at most "
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
    """The last logged values, then a sentence for each problem that the numbers show."""
    found = [describe(summary)]
    if summary["reference_r_hat"] > R_HAT_LIMIT:
        found.append(
            f"note: R-hat is above {R_HAT_LIMIT}, so the reference chains do not agree yet: raise "
            "--reference-samples before you rely on this table"
        )
    if summary["largest_shift"] > MAX_CONVERGED_SHIFT:
        found.append(
            "note: q has not converged: a mean is off by more than "
            f"{MAX_CONVERGED_SHIFT} posterior standard deviations; give more --steps, or more "
            "--num-samples and a smaller --learning-rate"
        )
    elif mean_field:
        found.append(
            "note: a mean-field q is too narrow where weights are correlated: its standard "
            "deviations are those of each weight given the others, not the marginal ones; "
            "--family full represents correlations"
        )
    return found
