"""``python scripts/variational_inference.py``: a posterior by either gradient, checked.

Variational inference climbs an expectation in the parameters of its distribution, as a policy
gradient does. Here ``q`` is fitted to the posterior of a Bayesian logistic regression by the
estimator of your choice, the variance of each is measured beside it on the same samples, and the
outcome is compared with draws from the posterior itself.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, final

from pgtoolkit.errors import RequestError
from pgtoolkit.scripts.cli.arguments import parse

if TYPE_CHECKING:
    from pgtoolkit.scripts.variational.elbo import ElboAscent
    from pgtoolkit.scripts.variational.logistic_regression import LogisticRegression
    from pgtoolkit.scripts.variational.posterior import Chains
    from pgtoolkit.training.writer import RunWriter

NUM_CHAINS, NUM_WARMUP = 32, 50
LOG_INTERVAL = 10


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class VariationalArguments:
    """Variational Bayesian logistic regression on scikit-learn's breast cancer data.

    The prior of all weights is N(0, 1), on standardised features.
    """

    estimator: Literal["pathwise", "score_function", "measure_valued"] = "pathwise"
    """The gradient that climbs. measure_valued needs --family diagonal, and evaluates the model 125
    times as often: give it fewer samples (--num-samples 32 --steps 2000 --learning-rate 0.02)."""
    family: Literal["diagonal", "full"] = "diagonal"
    """The covariance of q; a diagonal one is mean-field."""
    num_samples: int = 128
    """Samples of q in every step."""
    steps: int = 4000
    """Steps of Adam."""
    learning_rate: float = 0.01
    """Falls linearly to a hundredth."""
    measurement_interval: int = 40
    """Steps between measurements of the gradients' variance; 0 never measures."""
    reference_samples: int = 8000
    """Draws from the posterior itself to compare q with."""
    seed: int = 0
    """Of everything random."""
    threads: int = 1
    """CPU threads of torch."""
    run_dir: Path | None = None
    """The run's folder; default: runs/breast-cancer-FAMILY__ESTIMATOR__SEED__TIME."""

    def __post_init__(self) -> None:
        checks = {
            "num_samples": (self.num_samples >= 3, "at least 3"),
            "steps": (self.steps >= 1, "at least 1"),
            "learning_rate": (0 < self.learning_rate < float("inf"), "above 0"),
            "measurement_interval": (self.measurement_interval >= 0, "at least 0"),
            "reference_samples": (
                self.reference_samples >= 4 * NUM_CHAINS,
                f"at least {4 * NUM_CHAINS}",
            ),
            "seed": (self.seed >= 0, "at least 0"),
            "threads": (self.threads >= 1, "at least 1"),
        }
        for name, (holds, what) in checks.items():
            if not holds:
                flag = name.replace("_", "-")
                raise RequestError(f"--{flag} must be {what}, not {getattr(self, name)}")
        if self.estimator == "measure_valued" and self.family == "full":
            raise RequestError(
                "measure-valued derivatives are there for independent dimensions only: use "
                "--family diagonal, or another --estimator"
            )


def run(arguments: Sequence[str]) -> None:
    """Parses, fits, compares.

    Raises:
        RequestError: the request is wrong, or scikit-learn is missing.
        NonFiniteError: the ascent diverged.
    """
    options = parse(VariationalArguments, arguments, command="variational_inference")
    import torch

    from pgtoolkit.scripts.variational.logistic_regression import LogisticRegression
    from pgtoolkit.scripts.variational.report import comparison, report
    from pgtoolkit.training.run_folder import RunFolder, default_path
    from pgtoolkit.training.writer import RunWriter

    torch.set_num_threads(options.threads)
    model = LogisticRegression.on_breast_cancer()
    name = f"breast-cancer-{options.family}"
    path = options.run_dir or default_path(name, options.estimator, options.seed)
    settings = dataclasses.asdict(options) | {"run_dir": str(path)}
    folder = RunFolder.create(path, settings)
    print(f"run: {path}", flush=True)
    with RunWriter(path) as writer:
        writer.begin(settings)
        ascent, measured = fit(model, options, writer)
        writer.end()
    summary = comparison(ascent, draw_reference(model, options), model.names) | measured
    folder.write_summary(settings | summary)
    print(report(summary, mean_field=options.family == "diagonal"))
    print(f"TensorBoard: tensorboard --logdir {path}")


def fit(
    model: "LogisticRegression", options: VariationalArguments, writer: "RunWriter"
) -> "tuple[ElboAscent, dict[str, float]]":
    """Climbs to the end; returns where it arrived, and the last measurements."""
    from pgtoolkit.scripts.variational.elbo import FAMILIES, ElboAscent
    from pgtoolkit.scripts.variational.report import AscentView

    ascent = ElboAscent(
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
    with AscentView(options.steps) as view:
        for step in range(1, options.steps + 1):
            metrics = ascent.step()
            if len(metrics) > 1 or (step - 1) % LOG_INTERVAL == 0 or step == options.steps:
                last |= writer.write(metrics, step)
            view.update(step, last)
    return ascent, last


def draw_reference(model: "LogisticRegression", options: VariationalArguments) -> "Chains":
    """Draws from the posterior itself."""
    import torch

    from pgtoolkit.scripts.variational.posterior import (
        hamiltonian_monte_carlo,
        laplace_approximation,
    )
    from pgtoolkit.seeding import stream

    start = torch.zeros(model.size, dtype=torch.float64)
    return hamiltonian_monte_carlo(
        model.log_joint,
        laplace_approximation(model.log_joint, start),
        num_chains=NUM_CHAINS,
        num_draws=-(-options.reference_samples // NUM_CHAINS),
        num_warmup=NUM_WARMUP,
        generator=stream(options.seed, "reference"),
    )


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
