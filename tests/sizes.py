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
}
HP = rx.Hyperparameters(learning_rate=3e-3, discount=0.9, v_min=-20.0, v_max=20.0)


def first_quick(values):
    """Cases of which the first runs always, and the others, which compile as much again, with the slow tests."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.slow) for value in others)]


def tiny(**changes):
    return dataclasses.replace(TINY, **changes)


def leaves_close(a, b, rtol=2e-3):
    """Batched matrix products round differently; a few Adam steps amplify that."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=2e-3)
