"""Exported policies, run by what would run them elsewhere, beside the policy in jax."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.learner.masks import MaskedActor
from reppo_fx.learner.normalizers import as_seen
from reppo_fx.ops import statistics_normalize
from reppo_fx.run import cli, export_policy, export_run, load_policy, read_policy
from reppo_fx.run.export import reader
from reppo_fx.run.export.check import example
from reppo_fx.run.export.inputs import inputs_of
from reppo_fx.training.assembly import mask_of

from ..sizes import HP
from .test_lines import SAVED

SIZE, ENTRIES, CHOICES = 5, 3, 4
SPEC = jax.ShapeDtypeStruct((SIZE,), jnp.float32)
ONE = probes.match_observation()._replace(observation=SPEC, action_size=ENTRIES)
PARTS = {"state": SPEC, "privileged_state": jax.ShapeDtypeStruct((9,), jnp.float32)}
MASKED = {"action_mask": jax.ShapeDtypeStruct((CHOICES,), jnp.bool_), "state": SPEC}
WORLDS = {
    "box": ONE,
    "own range": ONE._replace(action_scale=(1.0, 2.5, 40.0)),
    "parts": ONE._replace(observation=PARTS, critic_part="privileged_state"),
    "named": ONE._replace(observation={"robot": {"arm": SPEC}}, actor_part="robot.arm"),
    "whole numbers": ONE._replace(observation=jax.ShapeDtypeStruct((SIZE,), jnp.uint8)),
    "choice": ONE._replace(action_size=1, num_actions=CHOICES),
    "masked": ONE._replace(
        action_size=1, num_actions=CHOICES, observation=MASKED, action_mask="action_mask"
    ),
}


def policy_for(env, norm="rms", depth=3, normalize=statistics_normalize, width=16):
    """A policy of random numbers, with statistics of its own for every entry."""
    key = jax.random.key(7)
    discrete = env.num_actions is not None
    scale = env.action_scale
    distribution = (
        rx.categorical(CHOICES) if discrete else rx.tanh_normal(env.action_size, scale, limit=0.99)
    )
    actor = rx.Actor(key, SIZE, distribution.num_outputs, width, depth, norm)
    # Fresh norms scale by 1 and shift by 0, which would hide that they are not applied.
    noise = iter(jax.random.split(key, 100))
    actor = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(noise), x.shape), actor)
    counts = jnp.arange(1.0, 1.0 + SIZE)
    statistics = rx.RunningStatistics(3.0 + counts, counts**2, jnp.asarray(100.0))
    own = {"with_mask": mask_of(env.action_mask)} if env.action_mask else {}
    return rx.Policy(
        actor=MaskedActor(actor) if env.action_mask else actor,
        statistics=statistics,
        hyperparameters=rx.Hyperparameters(*map(jnp.asarray, HP)),
        part=env.actor_part,
        distribution=distribution,
        normalize=normalize,
        **own,
    )


def leaves_of(policy, env, count=50):
    inputs = inputs_of(policy, env)
    return example(policy, inputs, count), inputs


def expected_of(policy, env, leaves):
    return np.asarray(policy(inputs_of(policy, env).observation(leaves)))


def run_in_onnx(file, leaves):
    (action,) = onnxruntime.InferenceSession(file).run(["action"], leaves)
    return action


OTHER_NORMS = [(world, norm) for world in ("box", "masked") for norm in ("layer", "none")]


@pytest.mark.parametrize(("world", "norm"), [*((world, "rms") for world in WORLDS), *OTHER_NORMS])
def test_onnx_runtime_and_numpy_act_as_the_policy_does(world, norm, tmp_path):
    env = WORLDS[world]
    policy = policy_for(env, norm)
    act, _ = read_policy(export_policy(policy, env, tmp_path / "policy.npz", "numpy"))
    model = export_policy(policy, env, tmp_path / "policy.onnx")
    for count in (1, 50):
        leaves, _ = leaves_of(policy, env, count)
        expected = expected_of(policy, env, leaves)
        found = run_in_onnx(model, leaves), act(*leaves.values())
        for action in found:
            assert action.dtype == expected.dtype
            scale = np.asarray(env.action_scale) if env.num_actions is None else 1
            np.testing.assert_allclose(action / scale, expected / scale, rtol=0, atol=1e-5)
    assert len(np.unique(expected, axis=0)) > 2  # it does not say the same everywhere


@pytest.mark.parametrize(
    "changes",
    [{"depth": 1}, {"depth": 2}, {"normalize": as_seen}],
    ids=["one layer", "two layers", "no statistics"],
)
def test_other_depths_and_no_statistics(changes, tmp_path):
    policy = policy_for(ONE, **changes)
    leaves, _ = leaves_of(policy, ONE)
    expected = expected_of(policy, ONE, leaves)
    model = export_policy(policy, ONE, tmp_path / "policy.onnx")
    act, _ = read_policy(export_policy(policy, ONE, tmp_path / "policy.npz", "numpy"))
    for action in (run_in_onnx(model, leaves), act(*leaves.values())):
        np.testing.assert_allclose(action, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "numpy"])
def test_a_policy_that_amplifies_rounding_is_no_mistake(form, tmp_path):
    """Weights of thrice the size without norms: jax itself is off by more than 1e-5."""
    policy = policy_for(ONE, "none", width=512)
    policy = eqx.tree_at(lambda p: p.actor, policy, jax.tree.map(lambda x: 3 * x, policy.actor))
    assert export_policy(policy, ONE, tmp_path / "policy", form).is_file()


def test_actions_at_the_edge_stop_at_the_limit(tmp_path):
    env = WORLDS["own range"]
    policy = policy_for(env)
    last_bias = lambda policy: policy.actor.trunk.layers[-1].bias
    policy = eqx.tree_at(last_bias, policy, last_bias(policy) + 1e3)
    leaves, _ = leaves_of(policy, env)
    act, facts = read_policy(export_policy(policy, env, tmp_path / "policy.npz", "numpy"))
    largest = 0.99 * np.array([1.0, 2.5, 40.0])
    for action in (
        act(*leaves.values()),
        run_in_onnx(export_policy(policy, env, tmp_path / "p.onnx"), leaves),
    ):
        np.testing.assert_allclose(action, np.broadcast_to(largest, (50, 3)), rtol=1e-6)
    np.testing.assert_allclose(facts["action"]["high"], largest, rtol=1e-6)
    np.testing.assert_allclose(facts["action"]["low"], -largest, rtol=1e-6)


def test_a_mask_that_rules_out_all_rules_out_none_and_the_others_are_kept(tmp_path):
    env = WORLDS["masked"]
    policy = policy_for(env)
    leaves, _ = leaves_of(policy, env, 200)
    action = run_in_onnx(export_policy(policy, env, tmp_path / "policy.onnx"), leaves)
    some = leaves["action_mask"].any(1)
    assert not some.all()
    assert leaves["action_mask"][some, action[some]].all()
    open_to_all = {**leaves, "action_mask": np.ones_like(leaves["action_mask"])}
    free = run_in_onnx(tmp_path / "policy.onnx", open_to_all)
    np.testing.assert_array_equal(action[~some], free[~some])


def test_names_and_the_batch_axis_are_fixed(tmp_path):
    names = {"box": "observation", "parts": "state", "named": "robot.arm"}
    for world, name in names.items():
        env = WORLDS[world]
        file = export_policy(policy_for(env), env, tmp_path / "policy.onnx")
        (given,) = onnxruntime.InferenceSession(file).get_inputs()
        assert (given.name, given.shape) == (name, ["batch", SIZE])
    env = WORLDS["masked"]
    file = export_policy(policy_for(env), env, tmp_path / "policy.onnx")
    session = onnxruntime.InferenceSession(file)
    assert [each.name for each in session.get_inputs()] == ["state", "action_mask"]
    (given,) = session.get_outputs()
    assert (given.name, given.shape) == ("action", ["batch"])


# In a process that can import neither this package nor equinox.
ALONE = """
import json, sys, zipfile
for name in ("reppo_fx", "equinox", "jaxtyping", "optax"):
    sys.modules[name] = None
import jax, numpy as np
for kind in sys.argv[1:]:
    with zipfile.ZipFile(f"{kind}.jax.zip") as file:
        policy = jax.export.deserialize(bytearray(file.read("policy.bin")))
        facts = json.loads(file.read("metadata.json"))
    leaves = dict(np.load(f"{kind}.npz"))
    assert [each["name"] for each in facts["inputs"]] == list(leaves), facts
    assert set(policy.platforms) == {"cpu", "cuda", "tpu"}
    one = policy.call({name: leaf[:1] for name, leaf in leaves.items()})
    np.savez(f"{kind}-actions.npz", action=policy.call(leaves), one=one)
"""


class Looker:
    """A network of somebody's own: a picture, a number, and no layer of ours."""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, observation):
        lines = jnp.mean(observation["picture"].astype(jnp.float32), axis=-1)
        return jnp.sin(lines @ self.weight) * observation["speed"]


jax.tree_util.register_pytree_node(
    Looker, lambda looker: ((looker.weight,), None), lambda _, children: Looker(*children)
)
PICTURE = {
    "picture": jax.ShapeDtypeStruct((4, 6), jnp.float32),
    "speed": jax.ShapeDtypeStruct((1,), jnp.float32),
}


def own_policy():
    env = ONE._replace(observation={"state": PICTURE, "privileged_state": SPEC}, action_size=2)
    statistics = rx.statistics_init(PICTURE)
    policy = dataclasses.replace(
        policy_for(ONE),
        actor=Looker(jax.random.normal(jax.random.key(1), (4, 4))),
        statistics=statistics,
        distribution=rx.tanh_normal(2),
    )
    return policy, env


def test_programs_run_where_this_package_is_not(tmp_path):
    kinds = {"own": own_policy(), "masked": (policy_for(WORLDS["masked"]), WORLDS["masked"])}
    for kind, (policy, env) in kinds.items():
        export_policy(policy, env, tmp_path / f"{kind}.jax.zip", "jax")
        leaves, inputs = leaves_of(policy, env)
        np.savez(tmp_path / f"{kind}.npz", **leaves)
        assert (
            list(inputs.shapes)
            == {
                "own": ["state.picture", "state.speed"],
                "masked": ["state", "action_mask"],
            }[kind]
        )
        program = (tmp_path / f"{kind}.jax.zip").read_bytes()
        with zipfile.ZipFile(io.BytesIO(program)) as members:
            assert json.loads(members.read("metadata.json"))["stablehlo"] == "1.13.0"
            assert b".py" not in members.read("policy.bin")  # nor places of files
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *kinds], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for kind, (policy, env) in kinds.items():
        found = np.load(tmp_path / f"{kind}-actions.npz")
        expected = expected_of(policy, env, leaves_of(policy, env)[0])
        np.testing.assert_allclose(found["action"], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["one"], expected[:1], rtol=0, atol=1e-5)


# The lines that are to be copied, where there is neither jax nor this package.
COPIED = """
import sys
for name in ("reppo_fx", "jax"):
    sys.modules[name] = None
import numpy as np
from reader import read_policy
act, facts = read_policy(sys.argv[1])
np.save(sys.argv[3], act(np.load(sys.argv[2])))
"""


def test_the_reader_is_short_and_needs_numpy_alone(tmp_path):
    env = WORLDS["box"]
    policy = policy_for(env)
    export_policy(policy, env, tmp_path / "policy.npz", "numpy")
    leaves, _ = leaves_of(policy, env)
    np.save(tmp_path / "inputs.npy", leaves["observation"])
    shutil.copy(reader.__file__, tmp_path)
    files = [str(tmp_path / name) for name in ("policy.npz", "inputs.npy", "actions.npy")]
    done = subprocess.run(
        [sys.executable, "-c", COPIED, *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    expected = expected_of(policy, env, leaves)
    np.testing.assert_allclose(np.load(files[2]), expected, rtol=0, atol=1e-5)
    body = (tmp_path / "reader.py").read_text().partition("    data = ")[2]
    assert len(body.splitlines()) <= 25


def test_another_format_version_is_refused(tmp_path):
    file = export_policy(policy_for(ONE), ONE, tmp_path / "policy.npz", "numpy")
    arrays = dict(np.load(file))
    facts = json.loads(str(arrays["metadata"])) | {"format_version": 2}
    np.savez(file, **arrays | {"metadata": np.array(json.dumps(facts))})
    with pytest.raises(ValueError, match="has format version 2; this reads 1"):
        read_policy(file)


def test_what_a_format_cannot_hold_is_said_and_nothing_is_written(tmp_path, monkeypatch):
    file = tmp_path / "policy"
    own, own_env = own_policy()
    policy = policy_for(ONE)
    odd = policy.distribution._replace(policy=lambda outputs, hp: outputs)
    bent = policy.distribution._replace(mode=lambda p: jnp.tanh(p.mean) * (p.mean < 1))
    half = ONE._replace(observation=jax.ShapeDtypeStruct((SIZE,), jnp.float16))
    called = ONE._replace(observation={"action": SPEC}, actor_part="action")
    other = lambda **changes: dataclasses.replace(policy, **changes)
    cases = [
        (own, own_env, "the actor is a Looker of your own; 'jax' holds any policy"),
        (other(distribution=odd), ONE, "a distribution of your own"),
        (other(distribution=bent), ONE, "its actions differ from the policy's by"),
        (other(normalize=lambda s, x, f: x), ONE, "normalized by a function of your own"),
        (policy, half, "observation is float16, neither float32 nor whole numbers"),
        (other(part="action"), called, "a part 'action', which is the name of the output"),
        (jax.tree.map(lambda x: x[None], policy), ONE, "policy is of 1 members"),
        (
            jax.tree.map(lambda x: x * jnp.nan, policy),
            ONE,
            r"not numbers \(NaN\): its run has diverged",
        ),
        (
            eqx.tree_at(lambda p: p.actor.trunk.layers[0], policy, jnp.tanh),
            ONE,
            "a layer of the actor is a",
        ),
    ]
    for given, env, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            export_policy(given, env, file, "onnx")
    with pytest.raises(ValueError, match="which is a folder"):
        export_policy(policy, ONE, tmp_path)
    with pytest.raises(ValueError, match="unknown format 'onx'; did you mean 'onnx'"):
        export_policy(policy, ONE, file, "onx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"onnx is not installed.*reppo_fx\[export\]"):
        export_policy(policy, ONE, file, "onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_policy_in_double_precision_is_exported_in_single(tmp_path):
    with jax.enable_x64(True):
        policy = jax.tree.map(lambda x: jnp.asarray(np.float64(x)), policy_for(ONE))
        env = ONE._replace(observation=jax.ShapeDtypeStruct((SIZE,), jnp.float64))
        files = {
            name: export_policy(policy, env, tmp_path / name, name)
            for name in ("onnx", "jax", "numpy")
        }
        leaves, inputs = leaves_of(policy, env)
        expected = expected_of(policy, env, {k: np.float64(x) for k, x in leaves.items()})
    assert inputs.dtypes == {"observation": np.float32}
    with zipfile.ZipFile(files["jax"]) as members:
        program = jax.export.deserialize(bytearray(members.read("policy.bin")))
    act, _ = read_policy(files["numpy"])
    found = [run_in_onnx(files["onnx"], leaves), act(*leaves.values()), program.call(leaves)]
    for action in found:
        assert action.dtype == np.float32
        np.testing.assert_allclose(action, expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sweep of two settings and two seeds, made of a trained one of a single member."""
    out = tmp_path_factory.mktemp("runs") / "sweep"
    with tarfile.open(SAVED["jax-0.10-single"]) as whole:
        whole.extractall(out.parent, filter="data")
    (out.parent / "box").rename(out)
    description = json.loads((out / "config.json").read_text())
    description |= {"num_seeds": 2, "grid": {"kl_target": [0.1, 0.2]}}
    description["control"]["seconds_per_action"] = 0.02
    (out / "config.json").write_text(json.dumps(description))
    with (out / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    with (out / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, ["setting", "kl_target", *table[0]], lineterminator="\n")
        writer.writeheader()
        for turn, row in enumerate(table):
            for member, worth in enumerate((1.0, 2.0, 3.0, 4.0)):
                own = {"setting": member // 2, "kl_target": 0.1 + 0.1 * (member // 2)}
                own |= {"seed": member % 2, "eval_return": worth - 10 * turn}
                writer.writerow({**row, **own})
    for name in ("policy.eqx", "policy-best.eqx"):
        data, stacked = (out / name).open("rb"), io.BytesIO()
        with data:
            while data.peek(1):
                one = np.load(data)
                parts = [one + np.asarray(0.01 * member, one.dtype) for member in range(4)]
                np.save(stacked, np.concatenate(parts))
        (out / name).write_bytes(stacked.getvalue())
    return out


def metadata(file):
    if file.suffix == ".onnx":
        return json.loads(
            onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map["metadata"]
        )
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as members:
            return json.loads(members.read("metadata.json"))
    return read_policy(file)[1]


def test_every_format_from_the_command_line(run, capsys):
    shown = np.array([[-1.0], [0.5], [1.0]], np.float32)
    for form, ending in (("onnx", "onnx"), ("jax", "jax.zip"), ("numpy", "npz")):
        command = ["export", str(run), "--format", form, "--best", "--seed", "1", "--setting", "1"]
        assert cli.main(command) == 0
        file = run / f"policy-best-setting1-seed1.{ending}"
        assert str(file) in capsys.readouterr().out.replace("\n", "")
        facts = metadata(file)
        assert facts["task"] == "box"
        assert facts["inputs"] == [
            {
                "name": "observation",
                "shape": ["batch", 1],
                "dtype": "float32",
                "what": "observation",
            }
        ]
        assert facts["action"]["high"] == [pytest.approx(2 * 0.999)]
        assert facts["seconds_per_action"] == 0.02
        assert facts["reppo_fx"] == rx.__version__
        assert facts["date"].startswith("20")
        # The return falls from 4 to -6.
        assert (facts["return"], facts["env_steps"]) == (4.0, 16)
        assert facts["setting"] == "kl_target 0.2"
    expected = load_policy(run, seed=1, setting=1, best=True)(shown)
    action = run_in_onnx(run / "policy-best-setting1-seed1.onnx", {"observation": shown})
    np.testing.assert_allclose(action, expected, rtol=0, atol=1e-5)


def test_the_last_policy_has_the_last_return(run, tmp_path):
    file = export_run(run, "numpy", out=tmp_path / "mine.npz")
    act, facts = read_policy(file)
    assert (facts["return"], facts["env_steps"]) == (-9.0, 32)
    shown = np.array([[-1.0], [1.0]], np.float32)
    np.testing.assert_allclose(act(shown), load_policy(run)(shown), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--seed", "9"], "seed is 9; this run has seeds 0 to 1"),
        (["--setting", "9"], "setting is 9; this run has settings 0 to 1"),
        (["--out", "/proc/self/nowhere/x.onnx"], "No such file or directory"),
    ],
)
def test_what_cannot_be_is_a_sentence(run, more, sentence, capsys):
    assert cli.main(["export", str(run), *more]) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")


def test_facts_of_control_that_cannot_be_are_named(run, tmp_path):
    description = json.loads((run / "config.json").read_text())
    assert description["control"] == {"seconds_per_action": 0.02, "simulator_range": None}
    description["control"]["seconds_per_action"] = -1
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="control.seconds_per_action is -1; it must be positive"):
        load_policy(tmp_path)
    del description["control"]  # a run of before
    (tmp_path / "config.json").write_text(json.dumps(description))
    shutil.copy(run / "policy.eqx", tmp_path)
    shutil.copy(run / "metrics.csv", tmp_path)
    assert metadata(export_run(tmp_path, "numpy"))["seconds_per_action"] is None


def test_a_model_is_as_old_as_robots_need(tmp_path):
    model = onnx.load_from_string(export_policy(policy_for(ONE), ONE, tmp_path / "p").read_bytes())
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    assert len(model.SerializeToString()) < 20_000
