"""Runs in processes of its own (see test_devices.py): members and environments over devices, results as .npz.

python -m tests.sweeps.devices_worker OUT NUM_DEVICES [PROCESS NUM_PROCESSES PORT]
"""

import os
import sys

out, num_devices, *distributed = sys.argv[1:]
quick = os.environ.get("XLA_FLAGS", "")
flags = f"{quick} --xla_force_host_platform_device_count={num_devices}"
os.environ.update(JAX_PLATFORMS="cpu", XLA_FLAGS=flags)

import jax
import numpy as np

import reppo_fx as rx
from reppo_fx.envs import probes

from ..sizes import HP, tiny

CONFIG = tiny(num_envs=8)


def numbers(result):
    """Everything measured, and the parameters."""
    runs, population, spread = result
    leaves = jax.tree.leaves((runs.metrics, runs.state.tree.learner.networks, population, spread))
    return {str(index): np.asarray(leaf) for index, leaf in enumerate(leaves)}


def work(mesh):
    """A sweep of 5 members (an uneven number), a population, one spread run."""
    key = jax.random.key(0)
    train = rx.make_train(probes.match_observation(), CONFIG)
    settings = rx.grid(HP, learning_rate=[1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    runs = rx.sweep(train, settings, num_seeds=1, key=key, mesh=mesh)
    assert runs.metrics.eval_return.shape == (5, 1, 2)
    space = {"learning_rate": rx.log_uniform(1e-3, 1e-2)}
    population = rx.make_population(train, space, num_members=8, base=HP, mesh=mesh)
    _, history = jax.jit(population)(key)
    one = jax.make_mesh((1,), ("devices",), devices=jax.local_devices()[:1])
    run = rx.spread_environments(train, mesh or one)
    state = run.init(key, HP)
    if mesh is not None:
        for leaf in jax.tree.leaves((state.rollout.observation, state.rollout.env_state)):
            assert leaf.addressable_shards[0].data.shape[0] == CONFIG.num_envs // mesh.size
    state, metrics = run.round(state)
    everywhere = jax.sharding.NamedSharding(mesh or one, jax.sharding.PartitionSpec())
    copy = jax.jit(lambda tree: tree, out_shardings=everywhere)
    shared = lambda tree: jax.tree.map(lambda x: copy(x).addressable_data(0), tree)
    history = shared(history) if mesh is not None else history
    return runs, history, shared((metrics, state.learner.networks))


if distributed:
    process, count, port = map(int, distributed)
    jax.distributed.initialize(f"localhost:{port}", count, process)
mesh = None
if jax.device_count() > 1:
    mesh = jax.make_mesh((jax.device_count(),), ("members",))
result = work(mesh)
if jax.process_index() == 0:
    np.savez(out, **numbers(result))
