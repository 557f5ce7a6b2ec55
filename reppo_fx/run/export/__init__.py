"""A trained policy in a file that others read without this package: ONNX, `jax.export`, or NumPy arrays."""

from .policy_file import FORMATS, export_policy, export_run
from .reader import read_policy

__all__ = ["FORMATS", "export_policy", "export_run", "read_policy"]
