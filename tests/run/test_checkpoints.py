"""Checkpoints on disk: whole, exact, the last and the best; and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import CheckpointError, Checkpoints, sealed
from reppo_fx.run import checkpoints as checkpoints_module

from ..sizes import HP, TINY, tiny

KEY = jax.random.key(0)


class State(NamedTuple):
    """Everything that a state may hold."""

    weights: jax.Array
    nested: dict
    key: jax.Array


def make_state(seed=0):
    key = jax.random.key(seed)
    nested = {
        "count": jnp.asarray(seed, jnp.int32),
        "flags": jnp.array([True, False]),
        "nothing": jnp.zeros((3, 0)),
        "keys": jax.random.split(key, 2),
        "odd": jnp.array([jnp.nan, -0.0, jnp.inf]),
    }
    return State(jax.random.normal(key, (40, 50)), nested, key)


def saved(folder, *seeds, scores=None, keep=2):
    with Checkpoints(folder, keep) as checkpoints:
        for index, seed in enumerate(seeds):
            score = scores[index] if scores else None
            checkpoints.save(seed, make_state(seed), {"seed": seed}, score)
        checkpoints.wait()
        return checkpoints.steps()


def names(folder):
    """Everything in a folder but the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_what_comes_back_is_what_was_saved_bit_for_bit(tmp_path):
    saved(tmp_path, 7)
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(make_state(0))
        assert checkpoints.record() == {"seed": 7}
    same(restored.state, make_state(7))
    assert isinstance(restored.state, State)
    assert (restored.step, restored.record) == (7, {"seed": 7})
    jax.random.normal(restored.state.key)  # still a typed key


def test_the_last_and_the_best_are_kept(tmp_path):
    scores = [1.0, 9.0, 3.0, float("nan"), 2.0]
    assert saved(tmp_path, 1, 2, 3, 4, 5, scores=scores) == [2, 4, 5]
    with Checkpoints(tmp_path) as checkpoints:
        same(checkpoints.restore(make_state(), step=2).state, make_state(2))
        same(checkpoints.restore(make_state()).state, make_state(5))
        with pytest.raises(CheckpointError, match=r"holds no checkpoint 3; there are \[2, 4, 5\]"):
            checkpoints.restore(make_state(), step=3)


def test_a_saved_step_is_never_written_again(tmp_path):
    saved(tmp_path, 3)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, make_state(99), {"seed": 99})
        same(checkpoints.restore(make_state()).state, make_state(3))


def test_saving_copies_because_the_next_step_reuses_the_memory(tmp_path):
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.zeros(1000)
    with Checkpoints(tmp_path, keep=20) as checkpoints:
        for step in range(10):
            checkpoints.save(step, {"x": x}, {})
            x = add(x)
        for step in range(10):
            x_then = checkpoints.restore({"x": x}, step).state["x"]
            np.testing.assert_array_equal(x_then, np.full(1000, step))


def test_nothing_there(tmp_path):
    with (
        Checkpoints(tmp_path / "new") as checkpoints,
        pytest.raises(CheckpointError, match="no checkpoint; there are none"),
    ):
        checkpoints.restore(make_state())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (
            make_state()._replace(weights=jnp.zeros((40, 51))),
            r"does not fit: weights is \[40, 50\] float32 in it, but \[40, 51\] float32 here",
        ),
        (
            make_state()._replace(weights=jnp.zeros((40, 50), jnp.int32)),
            "weights is .* float32 in it, but .* int32 here",
        ),
        (
            make_state()._replace(nested={"count": jnp.zeros((), jnp.int32)}),
            "nested.flags is in it",
        ),
        (
            make_state()._replace(nested={**make_state().nested, "zoo": jnp.zeros(1)}),
            "does not fit: nested.zoo is missing from it",
        ),
    ],
)
def test_another_structure_is_refused_with_the_first_differing_path(tmp_path, like, message):
    saved(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match=message):
        checkpoints.restore(like)
    assert saved(tmp_path) == [1]


def test_another_width_or_task_is_refused(tmp_path):
    def init(env, **changes):
        return jax.jit(rx.make_train(env, tiny(**changes)).init)(KEY, HP)

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, init(probes.match_observation()), {})
        with pytest.raises(
            CheckpointError, match=r"learner\.networks\.actor\..* is \[\d+, 8\] float32"
        ):
            checkpoints.restore(init(probes.match_observation(), actor_width=16))
        other = probes.nan_bomb(probes.match_observation())
        with pytest.raises(CheckpointError, match=r"rollout\.env_state\.\S+ is missing from it"):
            checkpoints.restore(init(other))


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damaged(tmp_path, damage):
    """A fresh copy of a good checkpoint for each of its files, with that file damaged."""
    good = tmp_path / "good"
    saved(good, 1)
    for number, file in enumerate(path for path in files(good) if path.stat().st_size):
        folder = tmp_path / str(number)
        shutil.copytree(good, folder)
        path = folder / file.relative_to(good)
        path.write_bytes(damage(path.read_bytes()))
        yield folder
    assert number > 5


def flip_a_bit(data):
    return (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x10]) + data[len(data) // 2 + 1 :]
    )


@pytest.mark.parametrize("damage", [flip_a_bit, lambda data: data[:-1]], ids=["bit", "truncated"])
def test_damage_to_any_file_is_refused(tmp_path, damage):
    for folder in damaged(tmp_path, damage):
        with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="is damaged"):
            checkpoints.restore(make_state())


def test_a_checkpoint_that_was_not_finished_does_not_count(tmp_path):
    saved(tmp_path, 1, 2)
    # As a kill leaves it that came before the last rename, and one that came while it was being removed.
    (tmp_path / "2" / "seal.json").unlink()
    (tmp_path / "2").rename(tmp_path / "2.writing")
    shutil.copytree(tmp_path / "1", tmp_path / "7.removing")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(make_state()).step == 1
        checkpoints.save(2, make_state(5), {})
        same(checkpoints.restore(make_state(), step=2).state, make_state(5))
    assert names(tmp_path) == ["1", "2"]


def test_another_version_is_refused(tmp_path):
    saved(tmp_path, 1)
    folder = tmp_path / "1"
    path = folder / "reppo_fx.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    seal = json.loads((folder / "seal.json").read_text())
    sealed.write_seal(folder, sealed.file_digests(folder), seal["score"])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="version 99"):
        checkpoints.restore(make_state())


# Files beyond a size cannot be written. In a process of its own: the limit is the process's, and Orbax's other
# threads go on for a while after the first of them has failed.
FULL_DISK = """
import resource, sys
import jax.numpy as jnp
from reppo_fx.run import CheckpointError, Checkpoints
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    with Checkpoints(sys.argv[1]) as checkpoints:
        checkpoints.save(2, {"weights": jnp.arange(5000.0)}, {})
except CheckpointError as error:
    print(error)
"""


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path):
    saved(tmp_path, 1)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"checkpoint 2 could not be written.* there: \[1\]", printed)
    with Checkpoints(tmp_path) as checkpoints:
        same(checkpoints.restore(make_state()).state, make_state(1))


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to"
)
def test_a_folder_that_cannot_be_written_is_named():
    with Checkpoints("/proc/self/checkpoints") as checkpoints:
        checkpoints.save(1, make_state(), {})
        with pytest.raises(
            CheckpointError, match="checkpoint 1 could not be written to /proc/self"
        ):
            checkpoints.wait()


def test_a_state_after_training_comes_back_and_goes_on_the_same(tmp_path):
    train = rx.make_train(probes.match_observation(), TINY)
    round_ = jax.jit(train.round)
    state, _ = round_(jax.jit(train.init)(KEY, HP))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        restored = checkpoints.restore(state).state
    same(round_(restored), round_(state))


def test_a_score_is_not_lost_to_a_save_of_the_same_step_without_one(tmp_path):
    """The timer saves step 1, then its evaluation scores it; later scores are lower."""
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in ((1, 9.0), (2, 1.0), (3, 1.0), (4, 1.0)):
            checkpoints.save(step, make_state(step), {})
            checkpoints.save(step, make_state(step), {}, score)
        checkpoints.save(4, make_state(4), {})
        checkpoints.wait()
        assert checkpoints.steps() == [1, 3, 4]
        same(checkpoints.restore(make_state(), step=1).state, make_state(1))


def test_what_is_not_ours_is_never_touched(tmp_path):
    for name in ("100", "7", "5.writing", "8.removing", "sha256", "notes", "0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("keep me")
    (tmp_path / "0" / "seal.json").write_text("{}")
    (tmp_path / "9.writing").mkdir()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step), {})
        checkpoints.wait()
        assert checkpoints.steps() == [3]
        checkpoints.save(7, make_state(7), {})
        with pytest.raises(CheckpointError, match="7 is there already, and is not a checkpoint"):
            checkpoints.wait()
        checkpoints.save(5, make_state(5), {})
        with pytest.raises(CheckpointError, match="5.writing is there already, and is not ours"):
            checkpoints.wait()
    for name in ("100", "7", "5.writing", "8.removing", "sha256", "notes", "0"):
        assert (tmp_path / name / "mine.txt").read_text() == "keep me"
    assert (tmp_path / "9.writing").is_dir()


@pytest.mark.parametrize("moment", ["write_arrays", "write_seal", "sync_tree", "_remove"])
def test_a_failure_at_any_moment_leaves_the_one_before(tmp_path, monkeypatch, moment):
    saved(tmp_path, 1, keep=1)

    def fail(*_):
        raise OSError("no space left")

    owner = Checkpoints if moment == "_remove" else checkpoints_module
    monkeypatch.setattr(owner, moment, fail)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, make_state(2), {})
        with pytest.raises(CheckpointError, match="no space left"):
            checkpoints.wait()
    monkeypatch.undo()
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert 1 in checkpoints.steps()
        same(checkpoints.restore(make_state(), step=1).state, make_state(1))


@pytest.mark.parametrize(
    "tree",
    [{"a.b": np.ones(1), "a": {"b": np.zeros(1)}}, {"x.0": np.ones(1), "x": [np.zeros(1)]}],
)
def test_two_leaves_with_one_path_are_refused(tmp_path, tree):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match="two leaves have the path"),
    ):
        checkpoints.save(1, tree, {})


def test_a_leaf_that_holds_no_numbers_is_refused(tmp_path):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match="name is a str; only arrays of numbers are saved"),
    ):
        checkpoints.save(1, {"name": "mine"}, {})


@pytest.mark.parametrize("name", ["a b", "[x]*?", "ü=ö", "it's", "$HOME", 'q"uote'])
def test_a_folder_may_have_any_name(tmp_path, name):
    folder = tmp_path / name
    assert saved(folder, 1, 2) == [1, 2]
    with Checkpoints(folder) as checkpoints:
        same(checkpoints.restore(make_state()).state, make_state(2))


def test_one_writer_at_a_time(tmp_path):
    with Checkpoints(tmp_path) as first, Checkpoints(tmp_path) as second:
        first.save(1, make_state(1), {})
        first.wait()
        second.save(2, make_state(2), {})
        with pytest.raises(CheckpointError, match="is being written by another run"):
            second.wait()
    assert saved(tmp_path, 3) == [1, 3]


def test_another_precision_is_converted_where_no_number_changes(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"x": np.array([0.5, 0.1], np.float32), "n": np.int32(7)}, {})
        with jax.enable_x64(True):
            like = {"x": jnp.zeros(2, jnp.float64), "n": jnp.zeros((), jnp.int64)}
            wide = checkpoints.restore(like).state
            assert wide["x"].dtype == jnp.float64
            np.testing.assert_array_equal(wide["x"], np.float64(np.array([0.5, 0.1], np.float32)))
            checkpoints.save(2, {"x": np.array([0.5, 0.1]), "n": np.int64(2**40)}, {})
        narrow = {"x": jnp.zeros(2, jnp.float32), "n": jnp.zeros((), jnp.int32)}
        with pytest.raises(CheckpointError, match="in it, and .* here would change its numbers"):
            checkpoints.restore(narrow | {"x": wide["x"].astype("float32")}, step=2)


def test_a_folder_is_held_before_the_first_save(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as mine, Checkpoints(mine.folder) as yours:
        mine.hold()
        with pytest.raises(ValueError, match="is being written by another run"):
            yours.hold()
        mine.save(1, make_state(1), {})
    with Checkpoints(tmp_path / "checkpoints") as next_one:
        next_one.hold()
        assert next_one.steps() == [1]
