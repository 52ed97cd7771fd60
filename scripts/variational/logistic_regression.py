"""Bayesian logistic regression, and the breast cancer data."""

import dataclasses
import math
from typing import Self, final

import torch
import torch.nn.functional as F
from torch import Tensor

from pgtoolkit.errors import RequestError
from pgtoolkit.extras import install_command


@final
@dataclasses.dataclass(frozen=True, eq=False)
class LogisticRegression:
    """The model ``y_i ~ Bernoulli(logistic(x_i . z))`` with prior ``z ~ N(0, prior_std^2 I)``."""

    features: Tensor
    """``x``: ``[n, D]``, with ones in the first column for the intercept."""
    labels: Tensor
    """``y``: ``[n]``, 0 or 1."""
    names: tuple[str, ...]
    """``D`` names of the features."""
    prior_std: float = 1.0

    @property
    def size(self) -> int:
        """``D``, the number of weights."""
        return self.features.shape[1]

    def log_joint(self, z: Tensor) -> Tensor:
        """``log p(y, z)`` ``[...]`` of weights ``z`` ``[..., D]``.

        ``sum_i log logistic((2 y_i - 1) x_i . z) + log N(z; 0, prior_std^2 I)``.
        """
        margins = (2 * self.labels - 1) * (z @ self.features.T)
        squares = (z / self.prior_std).square().sum(-1)
        constant = self.size * (0.5 * math.log(2 * math.pi) + math.log(self.prior_std))
        return F.logsigmoid(margins).sum(-1) - 0.5 * squares - constant

    @classmethod
    def on_breast_cancer(cls, prior_std: float = 1.0) -> Self:
        """The model for 569 tumours, 30 standardised features and an intercept, in float64.

        Label 1 means benign. The data are the Wisconsin diagnostic data (Street et al. 1993) from
        scikit-learn.

        Raises:
            RequestError: scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_breast_cancer
        except ImportError as error:
            raise RequestError(
                f"the data come with scikit-learn: {install_command('variational')}"
            ) from error
        data = load_breast_cancer()
        raw = torch.as_tensor(data.data, dtype=torch.float64)
        standardised = (raw - raw.mean(0)) / raw.std(0, unbiased=False)
        features = torch.cat([torch.ones_like(raw[:, :1]), standardised], 1)
        names = ("intercept", *(str(name) for name in data.feature_names))
        return cls(features, torch.as_tensor(data.target).to(raw), names, prior_std)
