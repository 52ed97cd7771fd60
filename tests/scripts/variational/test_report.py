"""Tests of the report of variational inference."""

from pgtoolkit.scripts.variational.report import report


def test_what_the_report_says() -> None:
    """Chains that disagree, a q that has not converged, a q that is too narrow: one note each."""
    good = {
        "largest_shift": 0.2,
        "largest_shift_of": "mean radius",
        "median_shift": 0.1,
        "smallest_ratio": 0.4,
        "smallest_ratio_of": "mean texture",
        "median_ratio": 0.6,
        "largest_ratio": 0.7,
        "reference_draws": 8000,
        "reference_chains": 32,
        "reference_r_hat": 1.001,
        "reference_acceptance": 0.9,
        "reference_error": 0.016,
    }
    assert "note" not in report(good, mean_field=False)
    assert "mean-field q is too narrow" in report(good, mean_field=True)
    assert "q has not converged" in report(good | {"largest_shift": 0.6}, mean_field=True)
    assert "do not agree" in report(good | {"reference_r_hat": 1.2}, mean_field=False)
