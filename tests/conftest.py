"""Shapes and dtypes written in annotations are enforced in every test; JAX runs on the CPU."""

import os
import sys

# Before JAX is imported; subprocesses inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"

import jaxtyping
import pytest

# Not yet: envs (`select_part` gets shape structs too) and the three that name a Protocol without
# `runtime_checkable` in an annotation, which beartype refuses: networks, objectives, train.
CHECKED = ("ops", "evaluate", "policy", "presets", "rollout", "settings", "targets", "update")

too_early = sorted(name for name in sys.modules if name.split(".")[0] == "reppo_fx")
if too_early:
    raise ImportError(f"imported before their annotations could be checked: {too_early}")
jaxtyping.install_import_hook([f"reppo_fx.{name}" for name in CHECKED], "beartype.beartype")

# A script that runs beside a copy of reppo_fx/ops (see test_importer.py), not one to import here.
collect_ignore = ["ops/borrowing_agent.py"]


@pytest.fixture
def unchecked_annotations():
    """Let wrong shapes through to our own error messages, as without beartype."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
