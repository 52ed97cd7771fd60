"""Variational inference: the ascent against closed forms, the command, and the posterior itself."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from pgtoolkit.distributions.gaussian import DiagonalGaussian, FullGaussian
from pgtoolkit.errors import NonFiniteError
from pgtoolkit.estimators.expectation import Method
from pgtoolkit.scripts import variational_inference
from pgtoolkit.scripts.cli import main as cli
from pgtoolkit.scripts.variational.elbo import FAMILIES, ElboAscent, standard_deviations
from pgtoolkit.scripts.variational.logistic_regression import LogisticRegression
from pgtoolkit.scripts.variational.report import report

F64 = torch.float64
QUICK = ["--steps", "12", "--num-samples", "8", "--measurement-interval", "4"]
QUICK += ["--reference-samples", "128"]


def call(*arguments: str) -> int:
    """The exit code, in this process."""
    with pytest.raises(SystemExit) as caught:
        cli.run_command(variational_inference.run, arguments)
    return int(caught.value.code or 0)


def scalars(path: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


# The ascent on a Gaussian posterior, whose evidence lower bound is known --------------------------


PRECISION = torch.tensor([[2.0, 0.8, 0.0], [0.8, 1.0, -0.3], [0.0, -0.3, 0.5]], dtype=F64)
CENTRE = torch.tensor([0.5, -1.0, 0.2], dtype=F64)


def log_joint(z: Tensor) -> Tensor:
    shift = z - CENTRE
    return 3.0 - 0.5 * ((shift @ PRECISION) * shift).sum(-1)


def ascent(family: str, estimator: Method, num_samples: int, **settings: Any) -> ElboAscent:
    chosen = {"learning_rate": 0.02, "steps": 1000, "measurement_interval": 0, "seed": 0} | settings
    return ElboAscent(
        log_joint, FAMILIES[family], 3, estimator=estimator, num_samples=num_samples, **chosen
    )


def exact_gradient(parameters: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """By autograd of ``3 - 1/2 (m - c)'P(m - c) - 1/2 tr(P L L') + log det L + const``."""
    leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
    lower = leaves.get("lower", torch.zeros(3, 3, dtype=F64)).tril(-1)
    L = lower + torch.diag(leaves["log_std"].exp())
    elbo = log_joint(leaves["mean"]) - 0.5 * (PRECISION * (L @ L.T)).sum()
    elbo = elbo + leaves["log_std"].sum()
    found = torch.autograd.grad(elbo, list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize(
    ("family", "estimator"),
    [
        ("diagonal", "pathwise"),
        ("diagonal", "score_function"),
        ("diagonal", "measure_valued"),
        ("full", "pathwise"),
        ("full", "score_function"),
    ],
)
def test_each_estimate_of_the_gradient_is_unbiased(family: str, estimator: Method) -> None:
    """50 000 samples, every entry of every parameter, within 4.5 standard errors."""
    fitted = ascent(family, estimator, 50_000)
    generator = torch.Generator().manual_seed(1)
    for parameter in fitted.parameters.values():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=F64)
    noise = torch.randn(50_000, 3, generator=generator, dtype=F64)
    elbo, gradients = fitted.estimate(estimator, noise)
    assert elbo.shape == (50_000,)
    for name, expected in exact_gradient(fitted.parameters, family).items():
        values = gradients[name]
        error = values.std(0) / math.sqrt(len(values))
        distance = (values.mean(0) - expected).abs()
        assert bool((distance <= 4.5 * error + 1e-12).all()), name
        assert float(error.max()) < 0.1  # the bound means something


@pytest.mark.parametrize(
    ("estimator", "mean_error", "spread_error"),
    [
        ("pathwise", 0.011, 0.011),
        ("score_function", 0.028, 0.020),
        ("measure_valued", 0.008, 0.007),
    ],
)
def test_mean_field_arrives_where_theory_puts_it(
    estimator: Method, mean_error: float, spread_error: float
) -> None:
    """At the posterior's mean, with 1 / sqrt(P_ii) for the spread: less than the marginal's.

    What noise leaves is given: the root mean square over ten seeds, of the worst entry. It
    starts with errors of 1 and of 60 %.
    """
    fitted = ascent("diagonal", estimator, 64)
    for _ in range(1000):
        fitted.step()
    q = fitted.distribution
    assert q.mean.tolist() == pytest.approx(CENTRE.tolist(), abs=4.5 * mean_error)
    expected = PRECISION.diagonal().rsqrt()
    deviations = standard_deviations(q)
    assert deviations.tolist() == pytest.approx(expected.tolist(), rel=4.5 * spread_error)
    marginal = torch.linalg.inv(PRECISION).diagonal().sqrt()
    assert bool((expected < 0.95 * marginal).all())


@pytest.mark.parametrize(
    ("estimator", "mean_error", "covariance_error"),
    [("pathwise", 0.011, 0.025), ("score_function", 0.016, 0.082)],
)
def test_a_full_covariance_arrives_at_the_posterior(
    estimator: Method, mean_error: float, covariance_error: float
) -> None:
    """Errors as above; the entries of the covariance are up to 2.7."""
    fitted = ascent("full", estimator, 128)
    for _ in range(1000):
        fitted.step()
    q = fitted.distribution
    assert isinstance(q, FullGaussian)
    assert q.mean.tolist() == pytest.approx(CENTRE.tolist(), abs=4.5 * mean_error)
    difference = q.scale_tril @ q.scale_tril.T - torch.linalg.inv(PRECISION)
    assert float(difference.abs().max()) < 4.5 * covariance_error


@pytest.mark.parametrize("family", FAMILIES)
def test_measuring_changes_no_bit_of_the_ascent(family: str) -> None:
    """The measured gradient is the climbed one, and the others draw from streams of their own."""
    ends = []
    for interval in (0, 1):
        fitted = ascent(family, "score_function", 16, measurement_interval=interval)
        for _ in range(5):
            metrics = fitted.step()
        ends.append(fitted.parameters)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    norm = float(metrics["gradient/score_function/norm"])
    assert all(p.grad is not None for p in fitted.parameters.values())
    climbed = torch.cat([p.grad.flatten() for p in fitted.parameters.values()])  # type: ignore[union-attr]
    assert norm == pytest.approx(float(climbed.norm()))


def test_the_baseline_is_the_mean_of_the_step_before() -> None:
    """Without a single sample of the present step in it."""
    fitted = ascent("diagonal", "pathwise", 8)
    metrics = fitted.step()
    start = DiagonalGaussian(torch.zeros(3, dtype=F64), torch.full((3,), -0.5, dtype=F64))
    expected = float(metrics["variational/elbo"] - start.entropy())
    assert float(fitted.baseline) == pytest.approx(expected)


def test_standard_deviations_are_the_marginals() -> None:
    L = torch.tensor([[1.0, 9.0], [3.0, 4.0]], dtype=F64)  # what stands above is not read
    found = standard_deviations(FullGaussian(torch.zeros(2, dtype=F64), L))
    assert found.tolist() == pytest.approx([1.0, 5.0])


def test_an_ascent_that_diverges_is_named() -> None:
    """Half the samples make it infinite; nothing has been changed."""

    def broken(z: Tensor) -> Tensor:
        return log_joint(z) / (z[..., 0] > 0)

    fitted = ElboAscent(
        broken,
        FAMILIES["diagonal"],
        3,
        estimator="score_function",
        num_samples=8,
        learning_rate=0.01,
        steps=10,
        measurement_interval=0,
        seed=0,
    )
    with pytest.raises(NonFiniteError, match="ELBO"):
        fitted.step()
    assert fitted.parameters["mean"].tolist() == [0.0] * 3


# The command --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "estimator"),
    [("diagonal", "pathwise"), ("full", "score_function"), ("diagonal", "measure_valued")],
)
def test_a_few_steps_write_the_tags(
    family: str, estimator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    arguments = ["--family", family, "--estimator", estimator, "--run-dir", str(path), *QUICK]
    assert call(*arguments) == 0
    found = scalars(path)
    wanted = {"variational/elbo", "gradient/variance_ratio", "gradient/cosine", "gradient/bias_z"}
    for name in {"score_function", "pathwise", estimator}:
        wanted |= {f"gradient/{name}/variance{end}" for end in ("", "_low", "_high")}
    assert wanted <= found.keys()
    assert all(math.isfinite(value) for series in found.values() for value in series)
    assert len(found["gradient/pathwise/variance"]) == 3
    summary = json.loads((path / "summary.json").read_text())
    assert summary["estimator"] == estimator and summary["reference_draws"] == 128
    printed = capsys.readouterr().out
    assert "distance of means" in printed and "q has not arrived" in printed


def test_without_measurements_only_the_bound_is_written(tmp_path: Path) -> None:
    arguments = ["--run-dir", str(tmp_path / "run"), *QUICK, "--measurement-interval", "0"]
    assert call(*arguments) == 0
    assert scalars(tmp_path / "run").keys() == {"variational/elbo"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-samples", "2"], "--num-samples must be at least 3, not 2"),
        (["--steps", "0"], "--steps must be at least 1, not 0"),
        (["--learning-rate", "-1"], "--learning-rate must be above 0"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0"),
        (["--reference-samples", "100"], "--reference-samples must be at least 128, not 100"),
        (["--estimator", "measure_valued", "--family", "full"], "use --family diagonal"),
        (["--estimator", "implicit"], "invalid choice"),
    ],
)
def test_requests_that_are_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_missing_scikit_learn_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert call("--run-dir", str(tmp_path / "run")) == 2
    assert 'pip install "policy-gradient-toolkit[variational]"' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_data_are_standardised_with_an_intercept() -> None:
    model = LogisticRegression.on_breast_cancer()
    assert model.features.shape == (569, 31) and len(model.names) == 31
    assert bool((model.features[:, 0] == 1).all()) and int(model.labels.sum()) == 357
    columns = model.features[:, 1:]
    assert float(columns.mean(0).abs().max()) < 1e-12
    assert float((columns.square().mean(0) - 1).abs().max()) < 1e-12


def test_what_the_report_says() -> None:
    """Chains that disagree, a q that has not arrived, a q that is too narrow: one note each."""
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
    assert "q has not arrived" in report(good | {"largest_shift": 0.6}, mean_field=True)
    assert "do not agree" in report(good | {"reference_r_hat": 1.2}, mean_field=False)


# The posterior ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["pathwise", "score_function"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_arrive_at_the_posterior(family: str, estimator: str, tmp_path: Path) -> None:
    """Means within 0.3 posterior standard deviations; spreads as the family allows.

    The best mean-field q is off by 0.20 (measured with eight times the samples), a full covariance
    by 0.04; the rest is what noise leaves: 0.18 to 0.20 and 0.06 to 0.1 over seeds. The spread of a
    full covariance is 0.94 to 1.04 of the posterior's. A mean-field one is 0.41 to 0.72 of it.
    """
    path = tmp_path / "run"
    arguments = ["--family", family, "--estimator", estimator, "--run-dir", str(path)]
    assert call(*arguments) == 0
    summary = json.loads((path / "summary.json").read_text())
    assert summary["reference_r_hat"] < 1.01
    assert summary["largest_shift"] < 0.3
    if family == "full":
        assert summary["smallest_ratio"] > 0.9 and summary["largest_ratio"] < 1.1
    else:
        assert summary["smallest_ratio"] > 0.35 and summary["largest_ratio"] < 0.8
    assert scalars(path)["gradient/variance_ratio"][-1] > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "spread_error", "mean_error"),
    [("pathwise", 0.0045, 0.02), ("score_function", 0.017, 0.035)],
)
def test_the_mean_field_optimum_satisfies_its_equations(
    estimator: Method, spread_error: float, mean_error: float
) -> None:
    """E_q[d log p / dz] = 0 and 1 / sd_i^2 = -E_q[d^2 log p / dz_i^2] (Opper and Archambeau 2009).

    On 20 000 fresh samples, and with no sampler of the posterior. The mean's distance is that of a
    Newton step, in standard deviations of q. The errors given are root mean squares over the 31
    weights and five seeds.
    """
    model = LogisticRegression.on_breast_cancer()
    fitted = ElboAscent(
        model.log_joint,
        FAMILIES["diagonal"],
        model.size,
        estimator=estimator,
        num_samples=128,
        learning_rate=0.01,
        steps=4000,
        measurement_interval=0,
        seed=0,
    )
    for _ in range(4000):
        fitted.step()
    q = fitted.distribution
    z = q.sample(q.draw_noise(torch.Generator().manual_seed(7), (20_000,)))
    p = torch.sigmoid(z @ model.features.T)
    slope = ((model.labels - p) @ model.features - z).mean(0)
    curvature = 1 + (p * (1 - p)).mean(0) @ model.features.square()
    deviation = standard_deviations(q)
    assert float((deviation * curvature.sqrt() - 1).abs().max()) < 4.5 * spread_error
    assert float((slope / curvature / deviation).abs().max()) < 4.5 * mean_error
