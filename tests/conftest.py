"""Shapes and dtypes written in annotations are enforced in every test; JAX runs on the CPU."""

import atexit
import importlib
import os
import signal
import sys
import tempfile
import threading
from importlib.metadata import version

# A shell that starts tests in the background leaves Ctrl-C ignored, and processes inherit that: tests press it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before JAX is imported; subprocesses inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"
# One cache of compiled programs for a test session and all its processes, gone with it.
if "REPPO_FX_TEST_CACHE" not in os.environ:
    folder = tempfile.TemporaryDirectory(prefix="reppo_fx-tests-")
    atexit.register(folder.cleanup)
    os.environ["REPPO_FX_TEST_CACHE"] = os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
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
# Before any test imports EnvPool, which draws only by an EGL that was there before it.
importlib.import_module("reppo_fx.hosts")

# Scripts that run in processes of their own (see test_importer.py, test_devices.py, test_resume.py).
collect_ignore = [
    "ops/borrowing_agent.py",
    "sweeps/devices_worker.py",
    "run/resume_worker.py",
    "run/host_worker.py",
]


# Minutes each, though of few tests: begun last, one of them would keep a single worker busy at the end.
LONG = (
    *(
        "run/test_host_runs.py",
        "training/test_probes.py",
        "run/test_resume.py",
        "sweeps/test_population.py",
    ),
    *(
        "training/test_train.py",
        "hosts/test_same_learner.py",
        "test_readme.py",
        "sweeps/test_sweep.py",
    ),
    *(
        "test_keys.py",
        "training/test_meta_gradients.py",
        "training/test_verbs.py",
        "envs/test_gymnax.py",
    ),
)


def pytest_collection_modifyitems(items):
    """Files that take long come first; each keeps its tests together."""

    def place(item):
        names = [i for i, name in enumerate(LONG) if item.path.as_posix().endswith(f"tests/{name}")]
        return names[0] if names else len(LONG)

    items.sort(key=place)


@pytest.fixture
def unchecked_annotations():
    """Let wrong shapes through to our own error messages, as without beartype."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def probe_task(monkeypatch):
    """`make("probe")` gives a probe on the command line, so that no simulator is compiled."""
    from reppo_fx.envs import probes
    from reppo_fx.run import worlds

    make = lambda name, config: probes.match_observation()._replace(episode_length=6)
    monkeypatch.setattr(worlds, "make_world", make)
