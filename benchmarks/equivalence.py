"""Whether this package and the original code give the same numbers: same parameters, batch and random numbers.

python benchmarks/equivalence.py --authors PATH       # PATH: a copy of github.com/cvoelcker/reppo

Compared term by term under the choices of the `authors` preset: policy, critic, KL, λ-returns, losses, all
gradients; then a whole update and a whole iteration (rollout, targets, update) from equal state. Once in float32
and once in float64, where a wrong sign, index or constant cannot hide behind rounding. The error of a term is its
largest difference over its largest entry. Writes results/equivalence.json, and fails if a term differs;
`python benchmarks/table.py` makes the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import record
from peers import inner_function, load_authors
from translate import (
    BINS,
    ENVS,
    OBSERVATION,
    STEPS,
    Original,
    action_keys,
    keep_gradients,
    merged,
    our_actor,
    our_critic,
    our_state,
    our_train,
)

import reppo_fx as rx
from reppo_fx.learner.update import learner_init, run_epochs
from reppo_fx.ops import (
    hl_gauss_support,
    hl_gauss_targets,
    lambda_returns,
    tanh_normal_kl_sampled,
    tanh_normal_sample,
)

# Rounding of one evaluation; and where rounding is amplified: in a small difference of large numbers, and in Adam
# steps, whose sign follows it where a gradient is near zero.
ALLOWED = {"float64": (1e-10, 1e-8), "float32": (3e-5, 1e-2)}
# With AVX-512, XLA takes reciprocal roots of a gradient's norm to eight digits, in float64 as well.
EXACT = "--xla_cpu_max_isa=AVX2"


class Term(NamedTuple):
    """One thing compared."""

    name: str
    ours: Any
    theirs: Any
    loose: bool = False


def error(term: Term) -> float:

    ours, theirs = jax.tree.leaves(term.ours), jax.tree.leaves(term.theirs)
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise SystemExit(f"{term.name}: ours is {a.shape}, theirs is {b.shape}")
        worst = max(worst, float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return worst


def compare_networks(original: Original) -> list[Term]:
    """Policy and critic on random inputs."""
    train, hp = our_train(original)
    actor, critic = original.networks(1)
    old, _ = original.networks(7)
    state = our_state(train, hp, original.start, actor, critic)
    before, _ = our_actor(state.learner.networks.actor, old)
    x, key = original.start, jax.random.PRNGKey(3)
    mean, std = train.distribution.policy(state.learner.networks.actor(x), hp)
    old_mean, old_std = train.distribution.policy(before(x), hp)
    sample = tanh_normal_sample(jax.random.wrap_key_data(key), mean, std)
    policy = actor.actor(x)
    action, log_prob = policy.sample_and_log_prob(seed=key)
    output = state.learner.networks.critic(x, sample.action)
    embedding, predicted, predicted_reward, value = critic.forward(x, action)
    support = hl_gauss_support(0.0, 128.0, BINS)
    returns = jnp.linspace(-3.0, 131.0, ENVS, dtype=x.dtype)
    their_bins = lambda v: original.module.utils.hl_gauss(v, BINS, 0, 128)
    kl = tanh_normal_kl_sampled(
        jax.random.wrap_key_data(key), old_mean, old_std, mean, std, num_samples=16, clip=1e-4
    )
    old_action, old_log_prob = old.actor(x).sample_and_log_prob(sample_shape=(16,), seed=key)
    clipped = jnp.clip(old_action, -1 + 1e-4, 1 - 1e-4)
    their_kl = (old_log_prob.sum(-1) - policy.log_prob(clipped).sum(-1)).mean(0)
    return [
        Term("sampled action", sample.action, action),
        Term("log-density of it", sample.log_prob, log_prob.sum(-1)),
        Term("evaluation action", jnp.tanh(mean), actor.det_action(x)),
        Term("KL, sampled and clipped", kl, their_kl),
        Term("critic logits", output.outputs, critic.critic_cat(x, action)),
        Term("embedding", output.embedding, embedding),
        Term("predicted embedding", output.predicted_embedding, predicted),
        Term("predicted reward", output.predicted_reward, predicted_reward[..., 0]),
        Term("value", train.value_function.value(output.outputs, hp, ()), value),
        Term("HL-Gauss targets", hl_gauss_targets(returns, support), jax.vmap(their_bins)(returns)),
    ]


def compare_returns(original: Original) -> list[Term]:
    """Targets with and without ends."""
    compute = inner_function(original.learn_step, "compute_nstep_lambda")
    random = np.random.default_rng(5)
    draw = lambda: jnp.asarray(random.normal(size=(STEPS, ENVS)), original.start.dtype)
    reward, value = draw(), 30.0 + draw()

    def theirs(done: Any, truncated: Any) -> Any:
        rows = argparse.Namespace  # only attributes are read
        carry = (value[-1], jnp.ones(ENVS), jnp.zeros(ENVS))
        out = []
        for t in reversed(range(STEPS)):
            row = rows(
                done=done[t],
                soft_reward=reward[t],
                value=value[t],
                truncated=truncated[t],
                importance_weight=jnp.zeros(ENVS, value.dtype),
            )
            carry, target = compute(carry, row)
            out.append(target)
        return jnp.stack(out[::-1])

    def ours(terminated: Any, truncated: Any) -> Any:
        return lambda_returns(reward, value, terminated, truncated, 0.99, 0.95)

    none = jnp.zeros((STEPS, ENVS), bool)
    ended = jnp.asarray(random.uniform(size=(STEPS, ENVS)) < 0.15)
    cut = ended & jnp.asarray(random.uniform(size=(STEPS, ENVS)) < 0.5)
    # Their cut is one row early and stronger than a termination there; nothing is terminated in the last row.
    early = jnp.concatenate([cut[1:], jnp.ones((1, ENVS), bool)])
    return [
        Term("λ-returns, no ends", ours(none, none), theirs(none, none.astype(value.dtype))),
        Term(
            "λ-returns, random ends",
            ours(ended & ~early, early),
            theirs(ended, cut.astype(value.dtype)),
        ),
    ]


def compare_gradients(original: Original) -> list[Term]:
    """One minibatch: losses and gradients."""

    train, hp = our_train(original)
    actor, critic = original.networks(1)
    theirs = original.state(actor, critic, keep_gradients())
    key = jax.random.PRNGKey(11)
    _, rollout_key, learn_key = jax.random.split(key, 3)
    transitions, theirs = original.collect(rollout_key, theirs)
    learned, metrics = original.learn_step(learn_key, theirs, transitions)

    train, update_key = with_their_keys(train, key)
    state = our_state(train, hp, original.start, actor, merged(theirs.critic))
    _, collected = rx.collect(train, train.training_env, state)
    batch = rx.make_batch(train, state, collected)

    train = dataclasses.replace(train, optimizer=lambda hp, config: keep_gradients())
    start = learner_init(train, state.learner.networks, state.hyperparameters)
    start = start._replace(duals=start.duals._replace(params=state.learner.duals.params))
    after, ours = run_epochs(update_key, train, state._replace(learner=start), batch)
    critic_gradient = our_critic(
        state.learner.networks.critic, merged(learned.critic, learned.critic.opt_state)
    )
    actor_gradient = our_actor(
        state.learner.networks.actor, merged(learned.actor, learned.actor.opt_state)
    )
    row = collected.transitions
    return [
        Term("rollout: normalized observation", batch.actor_observation, transitions.obs),
        Term("rollout: action", row.action, transitions.action),
        Term("rollout: reward", row.reward, transitions.reward),
        Term("next embedding", batch.auxiliary, transitions.next_emb),
        Term("mean target", batch.target.mean(), metrics["target_values"]),
        Term("critic loss", ours.critic_loss, metrics["critic_update_loss"].mean()),
        Term("self-prediction loss", ours.aux_loss, metrics["aux_loss"].mean()),
        Term("mean value", ours.q_value, metrics["q"]),
        Term("actor loss", ours.actor_loss, metrics["actor_loss"].mean()),
        Term("entropy", ours.entropy, metrics["entropy"].mean()),
        Term("critic gradient", after.critic_opt_state, critic_gradient),
        Term("actor gradient", after.actor_opt_state[0], actor_gradient[0]),
        Term("multipliers' gradient", after.actor_opt_state[1], actor_gradient[1], True),
    ]


def with_their_keys(train: Any, key: Any) -> tuple[Any, Any]:
    """Ours, drawing from the keys that theirs draws from; and the key of the update."""
    keys, update_key = action_keys(key)
    train = dataclasses.replace(
        train, action_keys=lambda streams, rows: keys, target_keys=lambda streams, rows: keys
    )
    return train, update_key


def compare_iteration(original: Original) -> list[Term]:
    """A whole iteration from equal state, several epochs and minibatches."""
    train, hp = our_train(original)
    actor, critic = original.networks(1)
    key = jax.random.PRNGKey(13)
    _, rollout_key, learn_key = jax.random.split(key, 3)
    theirs = original.state(actor, critic, original.optimizer())
    train, update_key = with_their_keys(train, key)
    state = our_state(train, hp, original.start, actor, critic)

    @jax.jit
    def their_iteration(theirs: Any) -> Any:
        transitions, theirs = original.collect(rollout_key, theirs)
        return original.learn_step(learn_key, theirs, transitions)

    @jax.jit
    def our_iteration(state: Any) -> Any:
        collected = rx.collect(train, train.training_env, state)[1]
        return run_epochs(update_key, train, state, rx.make_batch(train, state, collected))

    theirs, metrics = their_iteration(theirs)
    ours, our_metrics = our_iteration(state)
    networks = state.learner.networks
    new_actor, duals = our_actor(networks.actor, merged(theirs.actor))
    new_critic = our_critic(networks.critic, merged(theirs.critic))
    moved = lambda new, old: jax.tree.map(lambda a, b: a - b, new, old)
    return [
        Term("KL of the last epoch", our_metrics.kl, metrics["kl"], True),
        Term(
            "critic's change",
            moved(ours.networks.critic, networks.critic),
            moved(new_critic, networks.critic),
            True,
        ),
        Term(
            "actor's change",
            moved(ours.networks.actor, networks.actor),
            moved(new_actor, networks.actor),
            True,
        ),
        Term(
            "multipliers' change",
            moved(ours.duals.params, state.learner.duals.params),
            moved(duals, state.learner.duals.params),
            True,
        ),
    ]


def work(path: Path, precision: str) -> dict[str, Any]:
    """All terms in one precision, in the process it is set for."""

    jax.config.update("jax_enable_x64", precision == "float64")
    authors = load_authors(path)
    start = jnp.asarray(np.random.default_rng(0).normal(size=(ENVS, OBSERVATION)), precision)
    single = Original(authors, start, epochs=1, minibatches=1)
    several = Original(authors, start, epochs=4, minibatches=4)
    groups = {
        "networks and operators": compare_networks(single),
        "returns": compare_returns(single),
        "rollout, losses and gradients": compare_gradients(single),
        "one iteration, 16 gradient steps": compare_iteration(several),
    }
    rows = [
        {
            "group": group,
            "term": term.name,
            "error": error(term),
            "allowed": ALLOWED[precision][term.loose],
        }
        for group, terms in groups.items()
        for term in terms
    ]
    return {"rows": rows, **record.stamp()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--authors", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--precision", choices=list(ALLOWED), help="only this one, as JSON")
    arguments = parser.parse_args()
    if arguments.precision:
        print(json.dumps(work(arguments.authors, arguments.precision)))
        return

    results = {}
    for precision in ALLOWED:
        command = [sys.executable, __file__, "--authors", str(arguments.authors)]
        command += ["--precision", precision]
        flags = f"{os.environ.get('XLA_FLAGS', '')} {EXACT}".strip()
        output = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "XLA_FLAGS": flags},
        ).stdout
        results[precision] = json.loads(output.splitlines()[-1])
    record.write(results, arguments.out / "equivalence.json")
    for precision, result in results.items():
        for row in result["rows"]:
            print(f"{precision}  {row['error']:8.1e}  {row['term']}")
    wrong = [
        f"{precision} {row['term']}: {row['error']:.1e}, allowed {row['allowed']:.0e}"
        for precision, result in results.items()
        for row in result["rows"]
        if not row["error"] <= row["allowed"]
    ]
    if wrong:
        raise SystemExit("these terms differ:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
