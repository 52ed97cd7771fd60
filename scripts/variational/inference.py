"""Fits ``q`` to the posterior, and draws from the posterior itself as a reference."""

import torch

from pgtoolkit.scripts.variational.arguments import NUM_CHAINS, VariationalArguments
from pgtoolkit.scripts.variational.elbo import FAMILIES, ElboOptimizer
from pgtoolkit.scripts.variational.logistic_regression import LogisticRegression
from pgtoolkit.scripts.variational.posterior import (
    Chains,
    hamiltonian_monte_carlo,
    laplace_approximation,
)
from pgtoolkit.scripts.variational.report import FitView
from pgtoolkit.seeding import stream
from pgtoolkit.training.writer import RunWriter

NUM_WARMUP = 50
"""Draws of each chain that are discarded."""

LOG_INTERVAL = 10
"""Steps between logged values of the ELBO."""


def fit(
    model: LogisticRegression, options: VariationalArguments, writer: RunWriter
) -> tuple[ElboOptimizer, dict[str, float]]:
    """Maximises the ELBO for ``options.steps`` steps.

    Returns:
        The optimiser with the fitted ``q``, and the last logged value of every tag.

    Raises:
        NonFiniteError: the ELBO or a gradient became NaN or infinite.
    """
    optimizer = ElboOptimizer(
        model.log_joint,
        FAMILIES[options.family],
        model.size,
        estimator=options.estimator,
        num_samples=options.num_samples,
        learning_rate=options.learning_rate,
        steps=options.steps,
        measurement_interval=options.measurement_interval,
        seed=options.seed,
    )
    last: dict[str, float] = {}
    with FitView(options.steps) as view:
        for step in range(1, options.steps + 1):
            metrics = optimizer.step()
            if len(metrics) > 1 or (step - 1) % LOG_INTERVAL == 0 or step == options.steps:
                last |= writer.write(metrics, step)
            view.update(step, last)
    return optimizer, last


def draw_reference(model: LogisticRegression, options: VariationalArguments) -> Chains:
    """Draws from the posterior by Hamiltonian Monte Carlo."""
    start = torch.zeros(model.size, dtype=torch.float64)
    return hamiltonian_monte_carlo(
        model.log_joint,
        laplace_approximation(model.log_joint, start),
        num_chains=NUM_CHAINS,
        num_draws=-(-options.reference_samples // NUM_CHAINS),
        num_warmup=NUM_WARMUP,
        generator=stream(options.seed, "reference"),
    )
