"""When a gradient counts as biased, and when a bias that was not found may still be too large.

The bias of an estimator is measured against the score function on the same trajectories: its
square is the signal of the matched difference. These two rules and their thresholds hold for the
verdict of ``pgtoolkit variance``, its plot and table, and the definitions of TensorBoard's tags.
"""

BIAS_Z = 5.0
"""The z of the squared bias above which an estimator may count as biased.

It is high, because z exceeds 3 without any bias now and then where gradients are skewed
(``docs/estimators.md`` has the rates).
"""

BIAS_SHARE = 0.25
"""Squared bias over signal from which a bias matters: half the length of the mean gradient."""


def is_biased(z: float, low: float) -> bool:
    """Whether an estimator is biased.

    Both conditions are required. Each alone is met by chance: z where gradients are skewed, and the
    interval of 95 % in a few of a hundred batches.

    Args:
        z: significance of the squared bias, on a normal scale; NaN if it was not measured.
        low: lower end of the squared bias's 95 % interval; NaN if there is none.
    """
    return z > BIAS_Z and low > 0


def bias_may_matter(high: float, signal: float) -> bool:
    """Whether a bias as large as matters is still possible.

    Args:
        high: upper end of the squared bias's 95 % interval; NaN if there is none.
        signal: the estimator's signal, its unbiased squared norm of the mean gradient.
    """
    return not high < BIAS_SHARE * signal
