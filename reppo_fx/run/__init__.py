"""The host side: loop, progress, records, checkpoints, pictures, command line. Nothing else imports it."""

from .checkpoints import CheckpointError, Checkpoints, Restored
from .policies import load_policies, load_policy
from .records import read_config

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Restored",
    "load_policies",
    "load_policy",
    "read_config",
]
