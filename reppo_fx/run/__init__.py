"""The host side: loop, progress, records, pictures, command line. Nothing else in the package imports it."""

from .records import load_policies, load_policy, read_config

__all__ = ["load_policies", "load_policy", "read_config"]
