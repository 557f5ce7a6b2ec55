"""Learned value against true value on the probe environments, several seeds in one program each.

python benchmarks/probes.py       # prints, and writes results/probes.json
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import reppo_fx as rx
from reppo_fx.envs import probes
from reppo_fx.training.presets import CLEANER

GAMMA, SEEDS, LENGTH = 0.9, 4, 5
CONFIG = rx.Config(
    total_steps=16_384,
    num_envs=16,
    num_steps=16,
    num_epochs=4,
    num_minibatches=4,
    num_evals=1,
    num_eval_envs=8,
    episode_length=20,
    actor_width=32,
    critic_width=32,
    num_bins=61,
    **CLEANER,
)
HP = rx.Hyperparameters(
    learning_rate=3e-3,
    final_learning_rate=0.1,
    discount=GAMMA,
    v_min=-2.0,
    v_max=12.0,
    entropy_target=5.0,
    initial_temperature=1e-3,
)
CASES = {
    "constant_reward": (probes.constant_reward(), [0.0], [1 / (1 - GAMMA)]),
    "reward_by_observation": (probes.reward_by_observation(), [-1.0, 1.0], [-1.0, 1.0]),
    "two_step_credit": (probes.two_step_credit(), [0.0, 1.0], [GAMMA, 1.0]),
    "terminating_reward": (
        probes.terminating_reward(LENGTH),
        [t / LENGTH for t in range(LENGTH)],
        [(1 - GAMMA ** (LENGTH - t)) / (1 - GAMMA) for t in range(LENGTH)],
    ),
}


def learned(env: rx.envs.Environment, shown: list[float]) -> np.ndarray:
    """`V(x)` per seed and shown number, `[seeds, shown]`."""
    train = rx.make_train(env, CONFIG)

    def one(key: jax.Array) -> jax.Array:
        state, _ = train(key, HP)
        at = jnp.array(shown)[:, None]
        inputs = rx.network_inputs(train, state.hyperparameters, state.rollout.statistics, at)
        return rx.value_of(train, state, key, inputs, num_samples=64).value

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), SEEDS)))


def main() -> None:

    results = []
    print("| probe | shown | true value | learned (mean ± sd of seeds) |\n|---|---|---|---|")
    for name, (env, shown, true) in CASES.items():
        values = learned(env, shown)
        for i, (x, v) in enumerate(zip(shown, true, strict=True)):
            print(
                f"| {name} | {x:g} | {v:.3f} | {values[:, i].mean():.3f} ± {values[:, i].std():.3f} |"
            )
        results.append({"probe": name, "shown": shown, "true": true, "learned": values.tolist()})
    record.write({**record.stamp(), "probes": results}, record.RESULTS / "probes.json")


if __name__ == "__main__":
    main()
