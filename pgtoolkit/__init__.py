"""pgtoolkit: one Gaussian policy, two gradients, both measured.

The names below are the core. Environments are in :mod:`pgtoolkit.envs`, agents in
:mod:`pgtoolkit.agents`, commands in :mod:`pgtoolkit.scripts`. They are imported when first used, so
that ``import pgtoolkit`` costs nothing and ``pgtoolkit --help`` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgtoolkit.baselines import leave_one_out as leave_one_out
    from pgtoolkit.baselines import optimal_baseline as optimal_baseline
    from pgtoolkit.beta import Beta as Beta
    from pgtoolkit.checkpoint import load_checkpoint as load_checkpoint
    from pgtoolkit.checkpoint import save_checkpoint as save_checkpoint
    from pgtoolkit.coupling import AffineCoupling as AffineCoupling
    from pgtoolkit.discrete import Bernoulli as Bernoulli
    from pgtoolkit.discrete import MultiCategorical as MultiCategorical
    from pgtoolkit.distributions import Categorical as Categorical
    from pgtoolkit.distributions import DiagonalGaussian as DiagonalGaussian
    from pgtoolkit.distributions import TanhGaussian as TanhGaussian
    from pgtoolkit.errors import NonFiniteError as NonFiniteError
    from pgtoolkit.errors import RequestError as RequestError
    from pgtoolkit.estimators import action_gradient as action_gradient
    from pgtoolkit.estimators import pathwise_surrogate as pathwise_surrogate
    from pgtoolkit.estimators import score_function_surrogate as score_function_surrogate
    from pgtoolkit.estimators import window_objective as window_objective
    from pgtoolkit.evaluation import evaluate as evaluate
    from pgtoolkit.expectations import expectation as expectation
    from pgtoolkit.full_gaussian import FullGaussian as FullGaussian
    from pgtoolkit.gradient_statistics import GradientStatistics as GradientStatistics
    from pgtoolkit.gradients import GradientRecorder as GradientRecorder
    from pgtoolkit.gradients import per_sample_gradients as per_sample_gradients
    from pgtoolkit.head_policy import HeadPolicy as HeadPolicy
    from pgtoolkit.mixing import cross_fitted_weight as cross_fitted_weight
    from pgtoolkit.mixing import mix_gradients as mix_gradients
    from pgtoolkit.mixing import mixed_surrogate as mixed_surrogate
    from pgtoolkit.mixture import GaussianMixture as GaussianMixture
    from pgtoolkit.noise import antithetic as antithetic
    from pgtoolkit.policies import CategoricalPolicy as CategoricalPolicy
    from pgtoolkit.policies import GaussianPolicy as GaussianPolicy
    from pgtoolkit.quadrature import gauss_hermite as gauss_hermite
    from pgtoolkit.returns import gae as gae
    from pgtoolkit.returns import reward_to_go as reward_to_go
    from pgtoolkit.returns import td_lambda_returns as td_lambda_returns
    from pgtoolkit.rollout import collect as collect
    from pgtoolkit.rollout import unroll as unroll
    from pgtoolkit.squashed import Squashed as Squashed
    from pgtoolkit.training import TrainConfig as TrainConfig
    from pgtoolkit.training import train as train
    from pgtoolkit.transformed import Transformed as Transformed
    from pgtoolkit.transformed import Uniform as Uniform
    from pgtoolkit.window import Window as Window

__version__ = "0.1.0"

HOME = {
    "AffineCoupling": "coupling",
    "Bernoulli": "discrete",
    "Beta": "beta",
    "Categorical": "distributions",
    "CategoricalPolicy": "policies",
    "DiagonalGaussian": "distributions",
    "FullGaussian": "full_gaussian",
    "GaussianMixture": "mixture",
    "GaussianPolicy": "policies",
    "GradientRecorder": "gradients",
    "GradientStatistics": "gradient_statistics",
    "HeadPolicy": "head_policy",
    "MultiCategorical": "discrete",
    "NonFiniteError": "errors",
    "RequestError": "errors",
    "Squashed": "squashed",
    "TanhGaussian": "distributions",
    "TrainConfig": "training",
    "Transformed": "transformed",
    "Uniform": "transformed",
    "Window": "window",
    "action_gradient": "estimators",
    "antithetic": "noise",
    "collect": "rollout",
    "cross_fitted_weight": "mixing",
    "evaluate": "evaluation",
    "expectation": "expectations",
    "gae": "returns",
    "gauss_hermite": "quadrature",
    "leave_one_out": "baselines",
    "load_checkpoint": "checkpoint",
    "mix_gradients": "mixing",
    "mixed_surrogate": "mixing",
    "optimal_baseline": "baselines",
    "pathwise_surrogate": "estimators",
    "per_sample_gradients": "gradients",
    "reward_to_go": "returns",
    "save_checkpoint": "checkpoint",
    "score_function_surrogate": "estimators",
    "td_lambda_returns": "returns",
    "train": "training",
    "unroll": "rollout",
    "window_objective": "estimators",
}

__all__ = [*HOME]


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'pgtoolkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pgtoolkit.{HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *HOME])
