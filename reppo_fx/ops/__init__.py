"""One equation a function: plain arrays in, plain arrays out. Nothing here knows the rest of the package.

REPPO's paper (arXiv 2507.11019) numbers its equations differently in each of its versions: where a number
could be checked it is cited with its version, elsewhere the equation is named.
"""

from .actor_losses import (
    expected_actor_loss,
    kl_constrained,
    pathwise_actor_loss,
    score_function_actor_loss,
)
from .categorical import (
    CategoricalSample,
    categorical_entropy,
    categorical_kl,
    categorical_log_prob,
    categorical_mean,
    categorical_sample,
)
from .critic_losses import self_prediction_loss, squared_value_loss
from .duals import DualParams, Duals, dual_init, dual_loss, dual_update
from .hl_gauss import (
    cross_entropy,
    hl_gauss_loss,
    hl_gauss_support,
    hl_gauss_targets,
    hl_gauss_value,
)
from .returns import entropy_regularized_rewards, generalized_advantages, lambda_returns
from .statistics import (
    RunningStatistics,
    statistics_init,
    statistics_normalize,
    statistics_update,
)
from .tanh_normal import (
    TanhNormalSample,
    tanh_normal_entropy,
    tanh_normal_kl,
    tanh_normal_kl_sampled,
    tanh_normal_log_prob,
    tanh_normal_mode,
    tanh_normal_sample,
)

__all__ = [
    "CategoricalSample",
    "DualParams",
    "Duals",
    "RunningStatistics",
    "TanhNormalSample",
    "categorical_entropy",
    "categorical_kl",
    "categorical_log_prob",
    "categorical_mean",
    "categorical_sample",
    "cross_entropy",
    "dual_init",
    "dual_loss",
    "dual_update",
    "entropy_regularized_rewards",
    "expected_actor_loss",
    "generalized_advantages",
    "hl_gauss_loss",
    "hl_gauss_support",
    "hl_gauss_targets",
    "hl_gauss_value",
    "kl_constrained",
    "lambda_returns",
    "pathwise_actor_loss",
    "score_function_actor_loss",
    "self_prediction_loss",
    "squared_value_loss",
    "statistics_init",
    "statistics_normalize",
    "statistics_update",
    "tanh_normal_entropy",
    "tanh_normal_kl",
    "tanh_normal_kl_sampled",
    "tanh_normal_log_prob",
    "tanh_normal_mode",
    "tanh_normal_sample",
]
