"""A PPO-style agent of somebody else's, in plain JAX and optax, with REPPO's ops borrowed as a folder.

It knows nothing of reppo_fx but the copied folder, `borrowed`. Its task is a contextual bandit in
episodes of random length: the context holds a sign behind an offset, and a large nuisance; the best
action is 0.6 times the sign, the reward 1 − (action − best)². An agent blind to the context earns
1 − 0.6² = 0.64 a step at most, a perfect one 1.
"""

import json

import borrowed
import jax
import jax.numpy as jnp
import optax

GAMMA, LAMBDA, END = 0.9, 0.95, 0.2
STEPS, ENVS, ITERATIONS, EPOCHS = 16, 64, 200, 4
SUPPORT = borrowed.hl_gauss_support(-5.0, 10.0, 31)
OPTIMIZER = optax.adam(0.01)


def draw_contexts(key, steps):
    sign_key, nuisance_key = jax.random.split(key)
    sign = jax.random.rademacher(sign_key, (steps, ENVS), jnp.float32)
    nuisance = 100.0 * jax.random.normal(nuisance_key, (steps, ENVS))
    return jnp.stack([5.0 + 3.0 * sign, nuisance], axis=-1)


def reward_of(context, action):
    best = 0.6 * jnp.sign(context[..., 0] - 5.0)
    return 1.0 - jnp.square(action[..., 0] - best)


def init():
    params = {
        "policy": {"w": jnp.zeros((2, 1)), "b": jnp.zeros(1), "log_std": jnp.full(1, -0.5)},
        "value": {"w": jnp.zeros((2, 31)), "b": jnp.zeros(31)},
    }
    return {
        "params": params,
        "opt_state": OPTIMIZER.init(params),
        "duals": borrowed.dual_init(temperature=0.01, multiplier=1.0),
        "statistics": borrowed.statistics_init(jnp.zeros(2)),
    }


def policy_of(params, x):
    mean = x @ params["policy"]["w"] + params["policy"]["b"]
    return mean, jnp.broadcast_to(jnp.exp(params["policy"]["log_std"]), mean.shape)


def value_logits(params, x):
    return x @ params["value"]["w"] + params["value"]["b"]


def collect(key, state):
    """Contexts do not depend on actions, so all steps are taken at once; the last row only bootstraps."""
    context_key, action_key, end_key = jax.random.split(key, 3)
    contexts = draw_contexts(context_key, STEPS + 1)
    statistics = borrowed.statistics_update(state["statistics"], contexts)
    x = borrowed.statistics_normalize(statistics, contexts)
    values = borrowed.hl_gauss_value(value_logits(state["params"], x), SUPPORT)
    mean, std = policy_of(state["params"], x[:-1])
    draw = borrowed.tanh_normal_sample(action_key, mean, std)
    rows = {
        "x": x[:-1],
        "mean": mean,
        "std": std,
        "pre_tanh": draw.pre_tanh,
        "log_prob": draw.log_prob,
        "reward": reward_of(contexts[:-1], draw.action),
        "terminated": jax.random.bernoulli(end_key, END, (STEPS, ENVS)),
        "value": values[:-1],
        "next_value": values[1:],
    }
    return statistics, rows


def loss_of(params, rows, targets, advantages, duals):
    critic = borrowed.hl_gauss_loss(value_logits(params, rows["x"]), targets, SUPPORT)
    mean, std = policy_of(params, rows["x"])
    log_prob = borrowed.tanh_normal_log_prob(mean, std, pre_tanh=rows["pre_tanh"])
    kl = borrowed.tanh_normal_kl(rows["mean"], rows["std"], mean, std)
    actor = borrowed.score_function_actor_loss(
        log_prob,
        advantages,
        kl,
        duals.temperature,
        duals.multiplier,
        kl_target=0.05,
        behavior_log_probs=rows["log_prob"],
    )
    return critic.mean() + actor.mean(), (-log_prob, kl)


def iteration(state, key):
    statistics, rows = collect(key, state)
    truncated = jnp.zeros((STEPS, ENVS), bool)
    path = (rows["terminated"], truncated, GAMMA, LAMBDA)
    targets = borrowed.lambda_returns(rows["reward"], rows["next_value"], *path)
    advantages = borrowed.generalized_advantages(
        rows["reward"], rows["value"], rows["next_value"], *path
    )

    def epoch(carry, _):
        params, opt_state, duals = carry
        gradients, (entropy, kl) = jax.grad(loss_of, has_aux=True)(
            params, rows, targets, advantages, duals
        )
        updates, opt_state = OPTIMIZER.update(gradients, opt_state, params)
        duals = borrowed.dual_update(
            duals, entropy, kl, target_entropy=-0.5, kl_target=0.05, learning_rate=0.02
        )
        return (optax.apply_updates(params, updates), opt_state, duals), None

    carry = (state["params"], state["opt_state"], state["duals"])
    (params, opt_state, duals), _ = jax.lax.scan(epoch, carry, length=EPOCHS)
    state = {
        "params": params,
        "opt_state": opt_state,
        "duals": duals,
        "statistics": statistics,
    }
    return state, {"reward": rows["reward"].mean(), "value": rows["value"].mean()}


@jax.jit
def train(key):
    train_key, test_key = jax.random.split(key)
    state, history = jax.lax.scan(iteration, init(), jax.random.split(train_key, ITERATIONS))
    contexts = draw_contexts(test_key, STEPS)
    x = borrowed.statistics_normalize(state["statistics"], contexts)
    action = borrowed.tanh_normal_mode(policy_of(state["params"], x)[0])
    return history, reward_of(contexts, action).mean(), state["duals"]


if __name__ == "__main__":
    history, greedy_reward, duals = train(jax.random.key(0))
    report = {
        "first_reward": float(history["reward"][:3].mean()),
        "last_reward": float(history["reward"][-10:].mean()),
        "last_value": float(history["value"][-10:].mean()),
        "greedy_reward": float(greedy_reward),
        "temperature": float(duals.temperature),
        "multiplier": float(duals.multiplier),
    }
    print(json.dumps(report))
