"""The smallest settings that exercise everything, shared by tests and by the processes they start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reppo_fx as rx
from reppo_fx.training.presets import CLEANER

TINY = rx.Config(
    total_steps=4 * 32,
    num_envs=4,
    num_steps=8,
    num_epochs=2,
    num_minibatches=2,
    num_evals=2,
    num_eval_envs=3,
    episode_length=6,
    actor_width=8,
    critic_width=8,
    # As shallow as they can be, a fifth less to compile; snippets, notebooks and runs have the depths of presets.
    actor_depth=2,
    encoder_depth=1,
    head_depth=1,
    predictor_depth=1,
    num_bins=21,
    **CLEANER,
)
# What snippets and notebooks are made small with.
TOY_CONFIG = {
    "total_steps": 64,
    "num_envs": 4,
    "num_steps": 8,
    "num_epochs": 1,
    "num_minibatches": 2,
    "num_evals": 2,
    "num_eval_envs": 2,
    "actor_width": 8,
    "critic_width": 8,
    "actor_depth": 2,
    "encoder_depth": 1,
    "head_depth": 1,
    "predictor_depth": 1,
}
HP = rx.Hyperparameters(learning_rate=3e-3, discount=0.9, v_min=-20.0, v_max=20.0)


def first_quick(values, count=1):
    """Cases of which the first run always, and the others, which compile as much again, with the slow tests."""
    values = list(values)
    others = [pytest.param(value, marks=pytest.mark.slow) for value in values[count:]]
    return [*values[:count], *others]


def tiny(**changes):
    return dataclasses.replace(TINY, **changes)


def leaves_close(a, b, rtol=2e-3):
    """Batched matrix products round differently; a few Adam steps amplify that."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=2e-3)
