"""REPPO in JAX: every equation a function, every hyperparameter traced, a whole sweep one program."""

from . import envs
from .evaluate import Episodes, evaluate_policy
from .networks import (
    Actor,
    Critic,
    Networks,
    ValueFunction,
    categorical_value_function,
    make_networks,
    squared_value_function,
)
from .ops import (
    DualParams,
    Duals,
    RunningStatistics,
    TanhNormalSample,
    dual_init,
    dual_loss,
    dual_update,
    entropy_regularized_rewards,
    expected_actor_loss,
    generalized_advantages,
    hl_gauss_loss,
    hl_gauss_support,
    hl_gauss_targets,
    hl_gauss_value,
    kl_constrained,
    lambda_returns,
    pathwise_actor_loss,
    score_function_actor_loss,
    self_prediction_loss,
    squared_value_loss,
    statistics_init,
    statistics_normalize,
    statistics_update,
    tanh_normal_entropy,
    tanh_normal_kl,
    tanh_normal_kl_sampled,
    tanh_normal_log_prob,
    tanh_normal_mode,
    tanh_normal_sample,
)
from .policy import Policy
from .presets import PRESETS, preset
from .settings import Config, Hyperparameters
from .train import Metrics, Train, TrainState, make_policy, make_train
