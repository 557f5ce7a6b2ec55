"""Discrete actions from the command line: files, saved policies, evaluation, resuming, sweeps, simulators."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.run import cli, load_policy, worlds
from reppo_fx.run.records import read_config

from .test_run import TINY, rows

PROBE = [*TINY, "--v-min", "-2", "--v-max", "2", "--entropy-share", "0.4"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sweep on a probe that masks its actions."""
    out = tmp_path_factory.mktemp("runs") / "masked"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "make_world", masked)
        command = ["sweep", "masked", *PROBE, "--grid", "entropy_share=0.1,0.9"]
        assert cli.main([*command, "--out", str(out)]) == 0
    return out


def masked(name, config=None):
    return probes.masked(probes.bandit())._replace(episode_length=6)


def shown(n):
    mask = jnp.eye(3, dtype=bool)[jnp.arange(n) % 3]
    return {"state": jnp.zeros((n, 1)), "action_mask": mask}


def test_a_saved_policy_loads_without_its_world_and_acts(run):
    facts = read_config(run)["environment"]
    assert (facts["num_actions"], facts["action_mask"], facts["action_size"]) == (
        3,
        "action_mask",
        1,
    )
    policy = load_policy(run, seed=1, setting=1)
    assert policy.distribution is rx.categorical(3)
    expected = [0, 1, 2, 0, 1]
    assert policy(shown(5)).tolist() == expected
    assert policy.sample(jax.random.key(0), shown(5)).tolist() == expected
    assert load_policy(run, best=True)(shown(5)).dtype == jnp.int32


def test_settings_of_a_sweep_differ_and_nothing_ruled_out_was_done(run):
    table = rows(run)
    assert {row["setting"] for row in table} == {"0", "1"}
    assert all(float(row["eval_return"]) <= 6.0 for row in table)  # one of those pays 100


def test_it_is_evaluated_with_chance_and_without_and_goes_on(run, monkeypatch, capsys):
    monkeypatch.setattr(worlds, "make_world", masked)
    for more in ([], ["--stochastic"], ["--best"]):
        assert cli.main(["eval", str(run), "--episodes", "2", *more]) == 0
    before = rows(run)
    more = str(2 * int(before[-1]["env_steps"]))
    assert cli.main(["train", "--resume", str(run), "--total-steps", more]) == 0
    assert rows(run)[: len(before)] == before
    capsys.readouterr()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_actions": 1}, "num_actions is 1; it must be a whole number of at least 2"),
        ({"num_actions": "three"}, "environment.num_actions is 'three'; it must be a whole number"),
        ({"action_mask": "state"}, "action_mask is 'state', which is float32"),
        ({"num_actions": None}, "only discrete actions"),
    ],
)
def test_facts_that_cannot_be_are_named(run, tmp_path, changes, sentence):
    description = json.loads((run / "config.json").read_text())
    description["environment"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=sentence):
        load_policy(tmp_path)


@pytest.mark.parametrize("task", ["gymnasium:CartPole-v1", "envpool:CartPole-v1"])
def test_a_simulator_by_name_trains_is_evaluated_and_leaves_a_policy(
    task, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", task, *TINY]) == 0
    out = Path("runs") / task.replace(":", "-")
    for more in ([], ["--stochastic"]):
        assert cli.main(["eval", str(out), "--episodes", "2", *more]) == 0
    assert "over 2 episodes" in capsys.readouterr().out
    actions = np.asarray(load_policy(out)(np.zeros((5, 4))))
    assert actions.shape == (5,)
    assert set(actions.tolist()) <= {0, 1}


@pytest.mark.parametrize("family", ["gymnasium", "envpool"])
def test_tasks_of_discrete_actions_are_listed(family, capsys):
    assert cli.main(["tasks", "CartPole-v"]) == 0
    assert f"{family}:CartPole-v1" in capsys.readouterr().out
