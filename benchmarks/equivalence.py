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
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
from peers import authors_config, closure, inner_function, load_authors

import reppo_fx as rx
from reppo_fx.iteration import batch_from_rollout, make_behavior
from reppo_fx.ops import (
    DualParams,
    hl_gauss_support,
    hl_gauss_targets,
    lambda_returns,
    statistics_init,
    statistics_update,
    tanh_normal_kl_sampled,
    tanh_normal_sample,
)
from reppo_fx.rollout import rollout
from reppo_fx.targets import flatten_batch
from reppo_fx.update import learner_init, update

# Rounding of one evaluation; and where rounding is amplified: in a small difference of large numbers, and in Adam
# steps, whose sign follows it where a gradient is near zero.
ALLOWED = {"float64": (1e-10, 1e-8), "float32": (3e-5, 1e-2)}
# So small that a few gradient steps bring states to either side of it.
KL_BOUND = 1e-4
OBSERVATION, ACTION, WIDTH, BINS = 5, 2, 32, 129
ENVS, STEPS = 32, 16


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


def dynamics(x: Any, action: Any) -> tuple[Any, Any]:
    """A smooth system without ends: next state and reward."""

    pushed = jnp.roll(x, 1, -1).at[..., :ACTION].add(0.3 * action)
    new = jnp.tanh(0.9 * pushed) + 0.1 * x
    return new, 1.0 + new[..., 0] - 0.1 * jnp.square(action).sum(-1)


class TheirState(NamedTuple):
    """What the original's wrappers read from a simulator's state."""

    x: Any
    info: dict[str, Any]


class TheirEnvironment:
    """`dynamics` for all instances, as the original code wants environments."""

    def __init__(self, start: Any) -> None:
        self.start = start

    def action_space(self, params: Any) -> Any:
        return argparse.Namespace(shape=(ACTION,))

    def reset(self, key: Any) -> Any:

        zeros = jnp.zeros(ENVS, self.start.dtype)
        return self.start, self.start, TheirState(self.start, {"truncation": zeros})

    def step(self, key: Any, state: TheirState, action: Any) -> Any:

        x, reward = dynamics(state.x, action)
        return x, x, TheirState(x, state.info), reward, jnp.zeros(ENVS, bool), {}


def our_environment(dtype: Any) -> Any:
    """`dynamics` for one instance, as this package wants environments."""

    def step(x: Any, action: Any) -> Any:
        new, reward = dynamics(x, action)
        no = jnp.asarray(False)
        return new, rx.envs.TimeStep(new, new, reward, no, no, {})

    start = jnp.zeros(OBSERVATION, dtype)
    spec = jax.ShapeDtypeStruct((OBSERVATION,), dtype)
    return rx.envs.Environment("smooth", lambda key: (start, start), step, spec, ACTION, 10_000)


def put(module: Any, **values: Any) -> Any:
    """A module with other values of some fields."""
    names = list(values)
    return eqx.tree_at(
        lambda m: [getattr(m, name) for name in names], module, list(values.values())
    )


def our_mlp(like: Any, module: Any, last_first: bool = False) -> Any:
    """Their network's arrays in ours; `last_first` where they put the last output first."""

    parts = [module.input_layer, *module.main_layers, module.output_layer]
    linears = [part.layers[0] for part in parts]
    weights = [(linear.kernel[...], linear.bias[...]) for linear in linears]
    if last_first:
        weights[-1] = tuple(jnp.roll(x, -1, -1) for x in weights[-1])
    layers = tuple(
        put(layer, weight=weight, bias=bias)
        for layer, (weight, bias) in zip(like.layers, weights, strict=True)
    )
    norms = tuple(
        put(norm, scale=part.layers[1].scale[...])
        for norm, part in zip(like.norms, parts[:-1], strict=True)
    )
    return put(like, layers=layers, norms=norms)


def our_actor(like: Any, module: Any) -> Any:
    """Actor and multipliers."""

    duals = DualParams(module.temperature_log_param[...][0], module.lagrangian_log_param[...][0])
    return put(like, trunk=our_mlp(like.trunk, module.actor_module)), duals


def our_critic(like: Any, module: Any) -> Any:
    return put(
        like,
        encoder=our_mlp(like.encoder, module.feature_module),
        head=our_mlp(like.head, module.critic_module),
        predictor=our_mlp(like.predictor, module.pred_module, last_first=True),
        offset=module.zero_dist[...].reshape(BINS),
    )


def keep_gradients() -> Any:
    """An optimizer that changes nothing and whose state is the last gradient."""

    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    return optax.GradientTransformation(zeros, lambda g, state, params=None: (zeros(g), g))


class Original:
    """The original code at one size: its networks, its state, its functions out of their closures."""

    def __init__(self, authors: Any, start: Any, epochs: int, minibatches: int) -> None:
        self.module, self.start = authors, start
        self.config = authors_config(
            authors,
            total_time_steps=ENVS * STEPS,
            num_envs=ENVS,
            num_steps=STEPS,
            num_mini_batches=minibatches,
            num_epochs=epochs,
            width=WIDTH,
            vmax=128,  # with this and 129 bins every edge is exact, also in float32
            num_bins=BINS,
            kl_bound=KL_BOUND,
        )
        train = authors.make_train_fn(self.config, TheirEnvironment(start))

        self.learn_step = closure(train, "learn_step")
        self.collect = closure(train, "collect_rollout")
        self.env = closure(self.collect, "env")

    def networks(self, seed: int) -> tuple[Any, Any]:
        """Actor and critic, with parameters of the run's precision."""
        from flax import nnx

        config = self.config
        actor = self.module.SACActorNetworks(
            obs_dim=OBSERVATION,
            action_dim=ACTION,
            hidden_dim=WIDTH,
            ent_start=config.ent_start,
            kl_start=config.kl_start,
            layers=config.num_actor_layers,
            rngs=nnx.Rngs(seed),
        )
        critic = self.module.CategoricalCriticNetwork(
            obs_dim=OBSERVATION,
            action_dim=ACTION,
            hidden_dim=WIDTH,
            num_bins=BINS,
            vmin=config.vmin,
            vmax=config.vmax,
            encoder_layers=2,
            head_layers=2,
            pred_layers=2,
            rngs=nnx.Rngs(seed + 1),
        )
        noise = np.random.default_rng(seed)
        for module in (actor, critic):
            # Away from zeros and ones, so that no term drops out.
            state = nnx.state(module)

            shaken = jax.tree.map(
                lambda x: jnp.asarray(x + 0.05 * noise.normal(size=x.shape), self.start.dtype),
                state,
            )
            nnx.update(module, shaken)
        return actor, critic

    def state(self, actor: Any, critic: Any, optimizer: Any) -> Any:
        """Their training state from networks."""
        from flax import nnx

        create = lambda module, tx: nnx.TrainState.create(
            graphdef=nnx.graphdef(module), params=nnx.state(module), tx=tx
        )
        key = jax.random.PRNGKey(0)
        observation, critic_observation, env_state = self.env.reset(key)
        action = jnp.zeros((ENVS, ACTION), self.start.dtype)
        stepped = jax.eval_shape(self.env.step, key, env_state, action)[2]
        env_state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), env_state, stepped)
        return self.module.SACTrainState(
            actor=create(actor, optimizer),
            actor_target=create(actor, optax.set_to_zero()),
            critic=create(critic, optimizer),
            iteration=0,
            time_steps=0,
            last_env_state=env_state,
            last_obs=observation,
            last_critic_obs=critic_observation,
        )

    def optimizer(self) -> Any:

        config = self.config
        return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.lr))


def merged(train_state: Any, params: Any = None) -> Any:
    """A module with the parameters (or gradients) of a training state."""
    from flax import nnx

    return nnx.merge(train_state.graphdef, train_state.params if params is None else params)


def our_train(original: Original) -> tuple[Any, Any]:
    """The same setting here."""

    config = original.config
    ours, hyperparameters = rx.preset(
        "authors",
        total_steps=ENVS * STEPS,
        num_envs=ENVS,
        num_steps=STEPS,
        num_epochs=config.num_epochs,
        num_minibatches=config.num_mini_batches,
        num_evals=1,
        actor_width=WIDTH,
        critic_width=WIDTH,
        num_bins=BINS,
    )
    hyperparameters = hyperparameters._replace(v_max=128.0, kl_target=KL_BOUND)
    return rx.make_train(our_environment(original.start.dtype), ours), hyperparameters


def our_state(train: Any, hyperparameters: Any, start: Any, actor: Any, critic: Any) -> Any:
    """Our training state with their networks, at the same start."""
    state = train.init(jax.random.key(0), hyperparameters)
    ours, duals = our_actor(state.learner.networks.actor, actor)
    networks = state.learner.networks._replace(
        actor=ours, critic=our_critic(state.learner.networks.critic, critic)
    )
    learner = learner_init(networks, train.learner, state.hyperparameters)
    learner = learner._replace(duals=learner.duals._replace(params=duals))
    outer = state.rollout.env_state  # auto_reset, contain_nan, time_limit
    inner = outer.inner._replace(inner=outer.inner.inner._replace(inner=start), observation=start)
    statistics = statistics_update(statistics_init(train.env.observation), start)
    rollout = state.rollout._replace(
        env_state=outer._replace(inner=inner), observation=start, statistics=statistics
    )
    return state._replace(learner=learner, rollout=rollout)


def action_keys(key: Any) -> tuple[Any, Any]:
    """The keys of their rollout, one per step, and of their update, as ours takes them."""

    _, rollout_key, learn_key = jax.random.split(key, 3)
    keys = []
    for _ in range(STEPS):
        rollout_key, act_key, _ = jax.random.split(rollout_key, 3)
        keys.append(act_key)
    _, update_key = jax.random.split(learn_key)
    typed = jax.random.wrap_key_data
    return typed(jax.numpy.stack(keys)), typed(update_key)


def compare_networks(original: Original) -> list[Term]:
    """Policy and critic on random inputs."""
    train, hp = our_train(original)
    actor, critic = original.networks(1)
    old, _ = original.networks(7)
    state = our_state(train, hp, original.start, actor, critic)
    before, _ = our_actor(state.learner.networks.actor, old)
    x, key = original.start, jax.random.PRNGKey(3)
    mean, std = state.learner.networks.actor(x, hp.min_std)
    old_mean, old_std = before(x, hp.min_std)
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
        Term("value", train.learner.value_function.value(output.outputs, hp), value),
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

    keys, update_key = action_keys(key)
    state = our_state(train, hp, original.start, actor, merged(theirs.critic))
    learner = train.learner._replace(optimizer=lambda hp, config: keep_gradients())
    batch, collected = our_batch(train, state, keys)

    start = learner_init(state.learner.networks, learner, state.hyperparameters)
    start = start._replace(duals=start.duals._replace(params=state.learner.duals.params))
    after, ours = update(start, update_key, flatten_batch(batch), learner, state.hyperparameters)
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
        Term("next embedding", batch.next_embedding, transitions.next_emb),
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


def our_batch(train: Any, state: Any, keys: Any) -> tuple[Any, Any]:
    """Our rollout and targets with given keys."""

    behavior = make_behavior(train, state)
    _, collected = rollout(
        train.training_env, behavior, state.rollout, keys, update_statistics=True
    )
    return batch_from_rollout(train, state, collected, keys), collected


def compare_iteration(original: Original) -> list[Term]:
    """A whole iteration from equal state, several epochs and minibatches."""
    train, hp = our_train(original)
    actor, critic = original.networks(1)
    key = jax.random.PRNGKey(13)
    _, rollout_key, learn_key = jax.random.split(key, 3)
    theirs = original.state(actor, critic, original.optimizer())
    state = our_state(train, hp, original.start, actor, critic)

    @jax.jit
    def their_iteration(theirs: Any) -> Any:
        transitions, theirs = original.collect(rollout_key, theirs)
        return original.learn_step(learn_key, theirs, transitions)

    @jax.jit
    def our_iteration(state: Any) -> Any:
        keys, update_key = action_keys(key)
        batch, _ = our_batch(train, state, keys)
        return update(
            state.learner, update_key, flatten_batch(batch), train.learner, state.hyperparameters
        )

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
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
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
