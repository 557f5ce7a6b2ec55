"""Shapes and dtypes written in annotations are enforced in every test; JAX runs on the CPU."""

import os
import sys

# Before JAX is imported; subprocesses inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"

import jaxtyping
import pytest

already_imported = sorted(name for name in sys.modules if name.split(".")[0] == "reppo_fx")
if already_imported:
    raise ImportError(f"the annotations of {already_imported} are not checked: imported too early.")
jaxtyping.install_import_hook("reppo_fx", "beartype.beartype")

# A script that runs from a copy of reppo_fx/ops (see test_importer.py), not a module to import here.
collect_ignore = ["ops/borrowing_agent.py"]


@pytest.fixture
def unchecked_annotations():
    """Let wrong shapes through to our own error messages, as without beartype."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
