"""REPPO in JAX: every equation a function, every hyperparameter traced, a whole sweep one program."""

from . import envs, hosts
from ._errors import ReppoWarning
from .hosts.train import HostTrain, make_host_train
from .learner.auxiliary import NO_AUXILIARY_TASK, SELF_PREDICTION, AuxiliaryTask
from .learner.batch import Batch, Successor
from .learner.distributions import Distribution, PolicySample, TanhNormal, tanh_normal
from .learner.learn import TrainingMetrics, learn
from .learner.method import Constraint, Method, Multipliers, network_inputs, policy_of
from .learner.networks import Actor, Critic, CriticOutput, Networks, NetworkShapes, make_networks
from .learner.normalizers import NO_NORMALIZATION, ONCE_PER_ITERATION, Normalizer
from .learner.objectives import (
    ActorLoss,
    ActorObjective,
    ActorTerms,
    KLRule,
    exact_kl,
    gae_loss,
    make_objective,
    pathwise_loss,
    sampled_kl,
    score_loss,
)
from .learner.optimizers import make_optimizer, skip_nonfinite
from .learner.rollout import Rollout, Transition
from .learner.scales import (
    ReturnStatistics,
    Scaled,
    by_return,
    by_reward,
    by_spread,
    scaled_value_function,
)
from .learner.state import KeyStreams, LearnerState, RolloutState, TrainState, key_streams
from .learner.targets import make_batch, value_of
from .learner.update import LearnerMetrics, update
from .learner.values import ValueFunction, categorical_value_function, squared_value_function
from .ops import (
    DualParams,
    Duals,
    RunningStatistics,
    TanhNormalSample,
    cross_entropy,
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
from .settings import Config, Hyperparameters
from .sweeps.halving import Halving, successive_halving
from .sweeps.population import (
    Population,
    PopulationMetrics,
    PopulationState,
    exploit_and_explore,
    make_population,
)
from .sweeps.runs import Best, Runs
from .sweeps.space import choice, grid, log_uniform, sample, uniform
from .sweeps.spread import Spread, spread_environments
from .sweeps.sweep import sweep
from .training.collect import collect
from .training.diagnosis import Finding, ReppoRunWarning, Watch, diagnose
from .training.evaluate import EpisodeMetric, Episodes, Trajectory, evaluate, evaluate_policy
from .training.iteration import train_iteration
from .training.policy import Policy, make_policy
from .training.presets import PRESETS, preset
from .training.train import Metrics, Train, make_train

__version__ = "0.2.0"

__all__ = [
    "NO_AUXILIARY_TASK",
    "NO_NORMALIZATION",
    "ONCE_PER_ITERATION",
    "PRESETS",
    "SELF_PREDICTION",
    "Actor",
    "ActorLoss",
    "ActorObjective",
    "ActorTerms",
    "AuxiliaryTask",
    "Batch",
    "Best",
    "Config",
    "Constraint",
    "Critic",
    "CriticOutput",
    "Distribution",
    "DualParams",
    "Duals",
    "EpisodeMetric",
    "Episodes",
    "Finding",
    "Halving",
    "HostTrain",
    "Hyperparameters",
    "KLRule",
    "KeyStreams",
    "LearnerMetrics",
    "LearnerState",
    "Method",
    "Metrics",
    "Multipliers",
    "NetworkShapes",
    "Networks",
    "Normalizer",
    "Policy",
    "PolicySample",
    "Population",
    "PopulationMetrics",
    "PopulationState",
    "ReppoRunWarning",
    "ReppoWarning",
    "ReturnStatistics",
    "Rollout",
    "RolloutState",
    "RunningStatistics",
    "Runs",
    "Scaled",
    "Spread",
    "Successor",
    "TanhNormal",
    "TanhNormalSample",
    "Train",
    "TrainState",
    "TrainingMetrics",
    "Trajectory",
    "Transition",
    "ValueFunction",
    "Watch",
    "by_return",
    "by_reward",
    "by_spread",
    "categorical_value_function",
    "choice",
    "collect",
    "cross_entropy",
    "diagnose",
    "dual_init",
    "dual_loss",
    "dual_update",
    "entropy_regularized_rewards",
    "envs",
    "evaluate",
    "evaluate_policy",
    "exact_kl",
    "expected_actor_loss",
    "exploit_and_explore",
    "gae_loss",
    "generalized_advantages",
    "grid",
    "hl_gauss_loss",
    "hl_gauss_support",
    "hl_gauss_targets",
    "hl_gauss_value",
    "hosts",
    "key_streams",
    "kl_constrained",
    "lambda_returns",
    "learn",
    "log_uniform",
    "make_batch",
    "make_host_train",
    "make_networks",
    "make_objective",
    "make_optimizer",
    "make_policy",
    "make_population",
    "make_train",
    "network_inputs",
    "pathwise_actor_loss",
    "pathwise_loss",
    "policy_of",
    "preset",
    "sample",
    "sampled_kl",
    "scaled_value_function",
    "score_function_actor_loss",
    "score_loss",
    "self_prediction_loss",
    "skip_nonfinite",
    "spread_environments",
    "squared_value_function",
    "squared_value_loss",
    "statistics_init",
    "statistics_normalize",
    "statistics_update",
    "successive_halving",
    "sweep",
    "tanh_normal",
    "tanh_normal_entropy",
    "tanh_normal_kl",
    "tanh_normal_kl_sampled",
    "tanh_normal_log_prob",
    "tanh_normal_mode",
    "tanh_normal_sample",
    "train_iteration",
    "uniform",
    "update",
    "value_of",
]
