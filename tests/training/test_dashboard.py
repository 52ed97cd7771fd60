"""The page of charts, and the scalars that are written for it."""

import math

import pytest
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from pgtoolkit.diagnostics.bias import BIAS_SHARE, BIAS_Z
from pgtoolkit.training.dashboard import MORE, dashboard_scalars, layout, layout_summary

QUESTIONS = [
    "1. Is it learning?",
    "2. Which gradient is better?",
    "3. Is it biased?",
    "4. What is wrong?",
]


def test_variances_have_logarithms_and_both_ends() -> None:
    """An end that is not known is the value: TensorBoard scales a margin chart by its ends."""
    group = "gradient/pathwise"
    found = dashboard_scalars({f"{group}/variance": 100.0, f"{group}/variance_high": 1e4}, "mixed")
    assert found == {
        f"{group}/log10_variance": 2,
        f"{group}/log10_variance_low": 2,
        f"{group}/log10_variance_high": 4,
    }


@pytest.mark.parametrize("variance", [0.0, math.inf, math.nan])
def test_of_a_variance_without_a_logarithm_nothing_is_written(variance: float) -> None:
    assert dashboard_scalars({"gradient/critic/variance": variance}, "critic") == {}


def test_an_end_without_a_logarithm_is_the_value() -> None:
    scalars = {"gradient/critic/variance": 10.0, "gradient/critic/variance_low": 0.0}
    found = dashboard_scalars(scalars, "critic")
    assert found["gradient/critic/log10_variance_low"] == 1


def test_the_snr_is_that_of_the_estimator_that_trains() -> None:
    """Nothing is written while it is not positive."""
    scalars = {"gradient/critic/snr": 0.01, "gradient/pathwise/snr": -1.0}
    assert dashboard_scalars(scalars, "critic") == {"gradient/followed/log10_snr": -2}
    assert dashboard_scalars(scalars, "pathwise") == {}
    assert dashboard_scalars({}, "mixed") == {}


def test_the_largest_share_is_that_of_the_estimator_that_trains() -> None:
    """One line for a run: TensorBoard tells tags of one run apart by markers only."""
    scalars = {"gradient/critic/largest_share": 0.1, "gradient/pathwise/largest_share": 0.0}
    assert dashboard_scalars(scalars, "critic") == {"gradient/followed/largest_share": 0.1}
    assert dashboard_scalars(scalars, "pathwise") == {"gradient/followed/largest_share": 0.0}
    assert dashboard_scalars(scalars, "mixed") == {}


@pytest.mark.parametrize(
    ("norm", "found"),
    [(1e14, {"train/log10_gradient_norm": 14}), (0.0, {}), (math.inf, {}), (math.nan, {})],
)
def test_the_norm_spans_decades_and_has_a_logarithm(norm: float, found: dict[str, float]) -> None:
    assert dashboard_scalars({"train/gradient_norm": norm}, "mixed") == found


@pytest.mark.parametrize("group", ["gradient", "gradient/critic"])
def test_a_bias_has_its_thresholds_beside_it(group: str) -> None:
    scalars = {
        f"{group}/bias_z": 1.0,
        f"{group}/log10_detectable_bias": -2.0,
        f"{group}/cosine": 0.5,
        f"{group}/cosine_low": 0.2,
        f"{group}/log10_variance_ratio": 3.0,
    }
    assert dashboard_scalars(scalars, "mixed") == {
        f"{group}/bias_z_threshold": BIAS_Z,
        f"{group}/log10_bias_that_matters": math.log10(BIAS_SHARE),
        f"{group}/cosine_high": 0.5,
        f"{group}/log10_variance_ratio_low": 3.0,
        f"{group}/log10_variance_ratio_high": 3.0,
    }


def test_the_charts_are_in_the_order_of_the_questions() -> None:
    """About ten at first. A critic has a group more, and charts of its own in the last one."""
    plain, critic = layout(has_critic=False), layout(has_critic=True)
    assert list(plain) == [*QUESTIONS, MORE]
    assert list(critic) == [*QUESTIONS, "5. And through the critic?", MORE]
    assert {name: critic[name] for name in QUESTIONS} == {name: plain[name] for name in QUESTIONS}
    assert plain[MORE].items() <= critic[MORE].items()
    assert sum(len(plain[name]) for name in QUESTIONS) == 10


def test_only_the_last_group_is_closed() -> None:
    groups = layout(has_critic=True)
    [encoded] = layout_summary(groups).value[0].tensor.string_val
    found = Layout.FromString(encoded).category
    assert {category.title: len(category.chart) for category in found} == {
        title: len(charts) for title, charts in groups.items()
    }
    assert [category.title for category in found if category.closed] == [MORE]


def test_charts_of_lines_come_before_margin_charts() -> None:
    """TensorBoard shows them in this order in any case, and reverses the margin charts."""
    for charts in layout(has_critic=True).values():
        kinds = [kind for kind, _ in charts.values()]
        assert kinds == sorted(kinds, reverse=True)
