"""Worlds that are programs of their own: the contract, its transforms, and adapters (imported when called)."""

from .base import HostEnvironment, HostTimeStep, Restarting, SimulatorError
from .conform import conform
from .maniskill import maniskill, maniskill_names
from .pure import pure
from .transforms import action_repeat, contain_nan, time_limit, training_environment

__all__ = [
    "HostEnvironment",
    "HostTimeStep",
    "Restarting",
    "SimulatorError",
    "action_repeat",
    "conform",
    "contain_nan",
    "maniskill",
    "maniskill_names",
    "pure",
    "time_limit",
    "training_environment",
]
