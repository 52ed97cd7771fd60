"""``python scripts/variational_inference.py``: fits a posterior by either gradient, and checks it.

Variational inference maximises an expectation over the parameters of the distribution, as a policy
gradient does. This command fits ``q`` to the posterior of a Bayesian logistic regression with the
chosen estimator, measures the variance of score function and pathwise beside it on the same
samples, and compares ``q`` with draws from the posterior itself.
"""

import dataclasses
from collections.abc import Sequence

from pgtoolkit.scripts.cli.arguments import parse
from pgtoolkit.scripts.variational.arguments import VariationalArguments


def run(arguments: Sequence[str]) -> None:
    """Fits, compares with the reference, writes the run's folder and prints the report.

    Raises:
        RequestError: the request is wrong, or scikit-learn is not installed.
        NonFiniteError: the fit diverged.
    """
    options = parse(VariationalArguments, arguments, command="variational_inference")
    import torch

    from pgtoolkit.scripts.variational.inference import draw_reference, fit
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
        optimizer, measured = fit(model, options, writer)
        writer.end()
    reference = draw_reference(model, options)
    summary = comparison(optimizer.distribution, reference, model.names) | measured
    folder.write_summary(settings | summary)
    print(report(summary, mean_field=options.family == "diagonal"))
    print(f"TensorBoard: tensorboard --logdir {path}")


if __name__ == "__main__":
    import sys

    from pgtoolkit.scripts.cli.main import run_command

    run_command(run, sys.argv[1:])
