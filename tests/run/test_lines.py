"""What one line of jax saved, in single and in double precision, is loaded by this one, in both.

`save_files.py` made what is in `saved/`, once with each line.
"""

import dataclasses
import functools
import json
import tarfile
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from rich.console import Console

import reppo_fx as rx
from reppo_fx.run import CheckpointError, Checkpoints, load_policy, read_policy, session, worlds
from reppo_fx.run.export.inputs import inputs_of
from reppo_fx.run.leaves import named_leaves

from .saved_kinds import HYPERPARAMETERS, kinds

FILES = sorted(Path(__file__).with_name("saved").glob("*.tar.xz"))
SAVED = {path.name.removesuffix(".tar.xz"): path for path in FILES}
PRECISIONS = {"single": False, "double": True}
KINDS = ("box", "choice", "parts", "own")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Every file as a folder of kinds."""
    folder = tmp_path_factory.mktemp("saved")
    for name, path in SAVED.items():
        with tarfile.open(path) as whole:
            whole.extractall(folder / name, filter="data")
    return folder


@functools.cache
def fresh(kind, here):
    """A method of this line, and the shapes of its state (those of a run have an axis of members)."""
    with jax.enable_x64(PRECISIONS[here]):
        train = kinds()[kind].train()
        if kinds()[kind].networks is not None:
            return train, jax.eval_shape(train.init, jax.random.key(0), HYPERPARAMETERS)
        keys, settings = (
            jax.random.split(jax.random.key(0), 1),
            rx.grid(HYPERPARAMETERS, discount=[0.9]),
        )
        return train, worlds.init_shapes(train, keys, settings)


def expected_in(folder):
    """Inputs by name, and the actions that were right where it was saved."""
    leaves = dict(np.load(folder / "expected.npz"))
    return leaves.pop("action"), leaves


def assert_acts(policy, kind, folder):
    expected, leaves = expected_in(folder)
    observation = inputs_of(policy, kinds()[kind].env).observation(leaves)
    np.testing.assert_allclose(policy(observation), expected, rtol=0, atol=1e-5)
    # Not of its statistics: observations that were single stay so.
    assert {x.dtype for x in jax.tree.leaves(policy.actor)} == {jnp.dtype(jnp.result_type(float))}


def test_both_lines_and_both_precisions_are_there():
    lines = {name.rsplit("-", 1)[0] for name in SAVED}
    assert len(lines) >= 2
    assert set(SAVED) == {f"{line}-{precision}" for line in lines for precision in PRECISIONS}


@pytest.mark.parametrize("here", PRECISIONS)
@pytest.mark.parametrize("name", SAVED)
def test_policies_act_as_they_did(saved, name, here):
    with jax.enable_x64(PRECISIONS[here]):
        # Kinds do not differ in how precision is read.
        for kind in KINDS[:3] if name.endswith("single") else KINDS[:1]:
            assert_acts(load_policy(saved / name / kind), kind, saved / name / kind)
        if here == "single":
            best = load_policy(saved / name / "parts", best=True)
            assert np.isfinite(best({"state": np.ones((3, 1), np.float32)})).all()


@pytest.mark.parametrize("here", PRECISIONS)
@pytest.mark.parametrize("name", SAVED)
def test_checkpoints_are_the_states_that_they_were(saved, name, here):
    """A state goes on as it was or not at all: what this precision cannot hold is refused."""
    with jax.enable_x64(PRECISIONS[here]):
        there = [kind for kind in KINDS if (saved / name / kind / "checkpoints").is_dir()]
        there = there if here == "single" else [kind for kind in there if kind in ("box", "own")]
        assert "box" in there
        for kind in there:
            folder = saved / name / kind
            train, like = fresh(kind, here)
            with Checkpoints(folder / "checkpoints") as checkpoints:
                if (name.endswith("double"), here) == (True, "single"):
                    with pytest.raises(
                        CheckpointError, match="would change its numbers .*X64=1 keeps"
                    ):
                        checkpoints.restore(like)
                    continue
                state = checkpoints.restore(like).state
            if kind != "own":
                state = jax.tree.map(lambda leaf: leaf[0], state)
            assert_acts(rx.make_policy(train, state), kind, folder)
            jax.random.normal(state.key)  # still a key


@pytest.mark.parametrize("here", PRECISIONS)
@pytest.mark.parametrize("name", SAVED)
def test_exports_act_as_they_did(saved, name, here):
    with jax.enable_x64(PRECISIONS[here]):
        for kind in KINDS if name.endswith("single") else KINDS[:1]:
            folder = saved / name / kind
            expected, leaves = expected_in(folder)
            with zipfile.ZipFile(folder / "policy.jax.zip") as members:
                program = jax.export.deserialize(bytearray(members.read("policy.bin")))
                facts = json.loads(members.read("metadata.json"))
            assert [each["name"] for each in facts["inputs"]] == list(leaves)
            found = [program.call(leaves)]
            if kind != "own":
                session = onnxruntime.InferenceSession(folder / "policy.onnx")
                found += session.run(None, leaves)
                found += [read_policy(folder / "policy.npz")[0](*leaves.values())]
            for action in found:
                np.testing.assert_allclose(action, expected, rtol=0, atol=1e-5)


def test_a_policy_beyond_the_range_of_single_precision_is_refused(saved, tmp_path):
    folder = next(saved / name for name in SAVED if name.endswith("double")) / "box"
    arrays = []
    with (folder / "policy.eqx").open("rb") as file:
        with jax.enable_x64(True):
            names = list(named_leaves(load_policy(folder)))
        arrays = [np.load(file) for _ in names]
    arrays[0][...] = 1e300
    for path in ("config.json", "metrics.csv"):
        (tmp_path / path).write_bytes((folder / path).read_bytes())
    with (tmp_path / "policy.eqx").open("wb") as file:
        for array in arrays:
            np.save(file, array)
    with pytest.raises(
        ValueError, match=r"actor\.trunk\S* is .* float64 in it, but .* float32 here"
    ):
        load_policy(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SAVED if name.endswith("single")])
def test_a_run_of_another_line_goes_on(saved, name, tmp_path, monkeypatch):
    monkeypatch.setattr(worlds, "make_world", lambda task, config: kinds()[task].env)
    folder = saved / name / "box"
    plan = session.Plan.from_json(session.read_config(folder))
    longer = dataclasses.replace(plan, config=dataclasses.replace(plan.config, total_steps=64))
    result = session.resume_in_folder(folder, longer, Console(quiet=True))
    assert result.env_steps.tolist() == [16, 32, 48, 64]
    assert np.isfinite(result.returns).all()
