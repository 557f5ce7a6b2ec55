"""The host side: loop, progress, records, checkpoints, pictures, command line. Nothing else imports it."""

from .checkpoints import CheckpointError, Checkpoints, Restored
from .export import export_policy, export_run, read_policy
from .policies import load_policies, load_policy
from .records import read_config

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Restored",
    "export_policy",
    "export_run",
    "load_policies",
    "load_policy",
    "read_config",
    "read_policy",
]
