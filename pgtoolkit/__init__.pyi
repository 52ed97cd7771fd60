from .diagnostics.per_trajectory import (
    GradientRecorder as GradientRecorder,
)
from .diagnostics.per_trajectory import (
    per_sample_gradients as per_sample_gradients,
)
from .diagnostics.statistics import (
    GradientStatistics as GradientStatistics,
)
from .distributions.beta import (
    Beta as Beta,
)
from .distributions.coupling import (
    AffineCoupling as AffineCoupling,
)
from .distributions.discrete import (
    Bernoulli as Bernoulli,
)
from .distributions.discrete import (
    Categorical as Categorical,
)
from .distributions.discrete import (
    MultiCategorical as MultiCategorical,
)
from .distributions.gaussian import (
    DiagonalGaussian as DiagonalGaussian,
)
from .distributions.gaussian import (
    FullGaussian as FullGaussian,
)
from .distributions.mixture import (
    GaussianMixture as GaussianMixture,
)
from .distributions.noise import (
    antithetic as antithetic,
)
from .distributions.quadrature import (
    gauss_hermite as gauss_hermite,
)
from .distributions.squashed import (
    Squashed as Squashed,
)
from .distributions.squashed import (
    TanhGaussian as TanhGaussian,
)
from .distributions.transformed import (
    Transformed as Transformed,
)
from .distributions.transformed import (
    Uniform as Uniform,
)
from .errors import (
    NonFiniteError as NonFiniteError,
)
from .errors import (
    RequestError as RequestError,
)
from .estimators.baselines import (
    leave_one_out as leave_one_out,
)
from .estimators.baselines import (
    optimal_baseline as optimal_baseline,
)
from .estimators.expectation import (
    expectation as expectation,
)
from .estimators.mixing import (
    cross_fitted_weight as cross_fitted_weight,
)
from .estimators.mixing import (
    mix_gradients as mix_gradients,
)
from .estimators.mixing import (
    mixed_surrogate as mixed_surrogate,
)
from .estimators.returns import (
    gae as gae,
)
from .estimators.returns import (
    reward_to_go as reward_to_go,
)
from .estimators.returns import (
    td_lambda_returns as td_lambda_returns,
)
from .estimators.surrogates import (
    action_gradient as action_gradient,
)
from .estimators.surrogates import (
    pathwise_surrogate as pathwise_surrogate,
)
from .estimators.surrogates import (
    score_function_surrogate as score_function_surrogate,
)
from .estimators.surrogates import (
    window_objective as window_objective,
)
from .estimators.value_gradient import (
    value_gradient as value_gradient,
)
from .estimators.value_gradient import (
    with_inferred_noise as with_inferred_noise,
)
from .networks.parts import (
    RowWithParts as RowWithParts,
)
from .policies.discrete import (
    CategoricalPolicy as CategoricalPolicy,
)
from .policies.gaussian import (
    GaussianPolicy as GaussianPolicy,
)
from .policies.policy import (
    HeadPolicy as HeadPolicy,
)
from .rollouts.evaluation import (
    Evaluation as Evaluation,
)
from .rollouts.rollout import (
    collect as collect,
)
from .rollouts.rollout import (
    unroll as unroll,
)
from .rollouts.trained_policy import (
    TrainedPolicy as TrainedPolicy,
)
from .rollouts.window import (
    Window as Window,
)
from .scripts.api.callback import (
    StopTraining as StopTraining,
)
from .scripts.api.callback import (
    TrainingProgress as TrainingProgress,
)
from .scripts.api.run import (
    Run as Run,
)
from .scripts.api.train import (
    evaluate as evaluate,
)
from .scripts.api.train import (
    load as load,
)
from .scripts.api.train import (
    train as train,
)
from .training.checkpoint import (
    load_checkpoint as load_checkpoint,
)
from .training.checkpoint import (
    save_checkpoint as save_checkpoint,
)
from .training.loop import (
    TrainConfig as TrainConfig,
)
from .version import __version__ as __version__
