"""The breast cancer data of the logistic regression."""

from pgtoolkit.scripts.variational.logistic_regression import LogisticRegression


def test_the_data_are_standardised_with_an_intercept() -> None:
    model = LogisticRegression.on_breast_cancer()
    assert model.features.shape == (569, 31) and len(model.names) == 31
    assert bool((model.features[:, 0] == 1).all()) and int(model.labels.sum()) == 357
    columns = model.features[:, 1:]
    assert float(columns.mean(0).abs().max()) < 1e-12
    assert float((columns.square().mean(0) - 1).abs().max()) < 1e-12
