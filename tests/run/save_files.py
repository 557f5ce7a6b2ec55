"""Writes `saved/jax-LINE-PRECISION.tar.xz` with the jax that runs it: runs, checkpoints, exports, right actions.

    python -m tests.run.save_files                       # with the oldest line of jax, then with the newest
    JAX_ENABLE_X64=1 python -m tests.run.save_files      # likewise

They stay as they are while the formats do: what was saved must load. A new version of a format gets new files, and
the old ones a test that they are refused with a sentence.
"""

import io
import sys
import tarfile
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import reppo_fx as rx
from reppo_fx.run import Checkpoints, export_policy, export_run, load_policy, session, worlds
from reppo_fx.run.export.check import example
from reppo_fx.run.export.inputs import inputs_of
from reppo_fx.run.export.program import in_single_precision
from reppo_fx.run.plan import Plan

from .saved_kinds import CONFIG, HYPERPARAMETERS, kinds

SAVED = Path(__file__).with_name("saved")
KEPT = ("config.json", "metrics.csv", "policy.eqx", "policy-best.eqx")


def save_run(name, kind, folder):
    """What the command line leaves; of own networks, which it does not have, a checkpoint and an export alone."""
    if kind.networks is None:
        worlds.make_world = lambda task, config: kind.env
        plan = Plan(name, "cpu", CONFIG, HYPERPARAMETERS, num_seeds=1)
        session.run_to_folder(plan, folder, Console(file=io.StringIO()))
        policy = load_policy(folder)
        for form in ("onnx", "jax", "numpy"):
            export_run(folder, form)
    else:
        train = kind.train()
        state, _ = jax.jit(train)(jax.random.key(0), HYPERPARAMETERS)
        folder.mkdir()
        with Checkpoints(folder / "checkpoints") as checkpoints:
            checkpoints.save(2, state, {"task": name}, 1.0)
        policy = rx.make_policy(train, state)
        export_policy(policy, kind.env, folder / "policy.jax.zip", "jax")
    inputs = inputs_of(policy, kind.env)
    leaves = example(policy, inputs, 4)
    with jax.enable_x64(False):
        action = in_single_precision(policy)(inputs.observation(leaves))
    np.savez(folder / "expected.npz", action=np.asarray(action), **leaves)


def _of_nobody(entry):
    """Without owner and time."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def main():
    line = ".".join(jax.__version__.split(".")[:2])
    precision = "double" if jnp.zeros(()).dtype == jnp.float64 else "single"
    SAVED.mkdir(exist_ok=True)
    target = SAVED / f"jax-{line}-{precision}.tar.xz"
    with (
        tempfile.TemporaryDirectory() as name,
        tarfile.open(target, "w:xz") as whole,
    ):
        for kind_name, kind in kinds().items():
            folder = Path(name) / kind_name
            save_run(kind_name, kind, folder)
            last = max(folder.glob("checkpoints/[0-9]*"), key=lambda path: int(path.name))
            for path in sorted(folder.rglob("*")):
                own = path.parent == folder and (
                    path.name in KEPT or path.suffix in (".zip", ".npz", ".onnx")
                )
                # They are the largest by far, and in double precision no two differ in kind.
                state = last in path.parents and (precision == "single" or kind_name == "box")
                if path.is_file() and (own or state):
                    whole.add(path, path.relative_to(name).as_posix(), filter=_of_nobody)
    print(target, target.stat().st_size, file=sys.stderr)


if __name__ == "__main__":
    main()
