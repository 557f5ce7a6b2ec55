"""Worlds that are programs of their own: the contract, its transforms, and adapters (imported when called)."""

from .base import HostEnvironment, HostTimeStep, Restarting, SimulatorError
from .collect import collect
from .conform import conform
from .envpool import envpool, envpool_names
from .evaluate import evaluate, evaluate_policy
from .families import FAMILIES, is_host_task, make
from .gymnasium import gymnasium, gymnasium_names
from .isaaclab import isaaclab
from .maniskill import maniskill, maniskill_names
from .parallel import parallel
from .pure import pure
from .train import HostTrain, make_host_train
from .transforms import action_repeat, contain_nan, time_limit, training_environment

__all__ = [
    "FAMILIES",
    "HostEnvironment",
    "HostTimeStep",
    "HostTrain",
    "Restarting",
    "SimulatorError",
    "action_repeat",
    "collect",
    "conform",
    "contain_nan",
    "envpool",
    "envpool_names",
    "evaluate",
    "evaluate_policy",
    "gymnasium",
    "gymnasium_names",
    "is_host_task",
    "isaaclab",
    "make",
    "make_host_train",
    "maniskill",
    "maniskill_names",
    "parallel",
    "pure",
    "time_limit",
    "training_environment",
]
