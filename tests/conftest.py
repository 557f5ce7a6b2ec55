"""Shapes and dtypes written in annotations are enforced in every test; JAX runs on the CPU."""

import os
import sys
from importlib.metadata import version

# Before JAX is imported; subprocesses inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"
# Programs here run for milliseconds and compile for seconds: with these, a sixth of that.
QUICK = "--xla_backend_optimization_level=0"
if version("jax").startswith("0.10."):
    # Later XLA does not know it any more, and an unknown flag aborts the process without a word.
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()

import jaxtyping
import pytest

too_early = sorted(name for name in sys.modules if name.split(".")[0] == "reppo_fx")
if too_early:
    raise ImportError(f"imported before their annotations could be checked: {too_early}")
jaxtyping.install_import_hook("reppo_fx", "beartype.beartype")

# A script that runs beside a copy of reppo_fx/ops (see test_importer.py), not one to import here.
collect_ignore = ["ops/borrowing_agent.py"]


@pytest.fixture
def unchecked_annotations():
    """Let wrong shapes through to our own error messages, as without beartype."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
