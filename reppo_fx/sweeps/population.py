"""Population methods as transforms over the member axis: successive halving and population-based training.

Both are possible inside one program because hyperparameters are part of a member's state: dropping, copying
and perturbing members is indexing into arrays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.train import Metrics, Train
from .members import (
    Stacked,
    flatten_members,
    lowest_unless_finite,
    num_settings,
    over_members,
    unflatten_members,
)
from .space import Distribution, check_distributions, sample
from .sweep import Runs

ONLY_AT_THE_START = ("initial_temperature", "initial_multiplier")


class Halving(NamedTuple):
    """Result of successive halving.

    Attributes:
        runs: as from `sweep`; a dropped setting keeps the state it was dropped in, and its metrics are NaN
            (counters −1) from then on.
        evaluations: how many evaluations each setting was trained for, `[settings]`.
    """

    runs: Runs
    evaluations: Int[Array, " settings"]


def halving_schedule(num_evals: int, rungs: int, freed: str) -> list[int]:
    """Evaluations between one drop and the next, `rungs + 1` numbers that sum to `num_evals`.

    With `freed="rest"` each stretch is twice as long as the one before: half the settings for twice the time,
    so that every rung costs the same. With `freed="stop"` all are equally long.

    Raises:
        ValueError: for another word, or when there are too few evaluations.

    >>> halving_schedule(7, 2, "rest"), halving_schedule(9, 2, "stop")
    ([1, 2, 4], [3, 3, 3])
    """
    if freed not in ("rest", "stop"):
        raise ValueError(f"freed is {freed!r}; allowed are 'rest', 'stop'.")
    if rungs < 1:
        raise ValueError(f"rungs is {rungs}; at least 1 is needed.")
    weights = [2**rung if freed == "rest" else 1 for rung in range(rungs + 1)]
    ends = [round(num_evals * sum(weights[: i + 1]) / sum(weights)) for i in range(rungs + 1)]
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    if min(lengths) < 1:
        raise ValueError(
            f"num_evals is {num_evals}; {rungs} rungs with freed={freed!r} need at least {sum(weights)}."
        )
    return lengths


def keep_best(scores: Float[Array, " settings"], keep: int) -> Int[Array, " keep"]:
    """Indices of the best settings, in their old order; what is not finite comes last.

    >>> print(keep_best(jnp.array([1.0, 3.0, jnp.nan, 2.0]), 2))
    [1 3]
    """
    _, best = jax.lax.top_k(lowest_unless_finite(scores), keep)
    return jnp.sort(best)


def successive_halving(
    train: Train,
    settings: Hyperparameters,
    *,
    num_seeds: int,
    key: Array,
    rungs: int = 2,
    freed: str = "rest",
) -> Halving:
    """Train all settings, and drop the worse half at each rung by their mean return over seeds.

    One pure program: can be jitted. The member axis shrinks at each rung, so the compiler sees one training
    loop per rung.

    Args:
        train: from `make_train`; survivors train for its `config.total_steps`.
        settings: leaves `[settings]`, e.g. from `sample`.
        num_seeds: runs per setting, which live and fall together.
        key: split into one per seed.
        rungs: how often to drop half.
        freed: what becomes of the compute of dropped settings. `"rest"`: drop early, at rungs that double in
            length, so that each costs the same and most of it goes to the survivors. `"stop"`: rungs of equal
            length, so that settings are judged later.

    Returns:
        The runs, and how long each setting lived.

    Raises:
        ValueError: if the leaves of `settings` do not share one axis, or there are too few settings or evaluations.

    Source: Jamieson & Talwalkar (arXiv 1502.07943).
    """
    count, total = num_settings(settings), train.config.num_evals
    lengths = halving_schedule(total, rungs, freed)
    if count < 2**rungs:
        raise ValueError(
            f"{count} settings cannot be halved {rungs} times; give {2**rungs} or more."
        )
    keys, members = flatten_members(settings, num_seeds, key)
    state = jax.vmap(train.init)(keys, members)
    alive, done = jnp.arange(count), 0
    metrics: Any = None
    evaluations = jnp.zeros(count, jnp.int32)
    for rung, length in enumerate(lengths):
        rows = (alive[:, None] * num_seeds + jnp.arange(num_seeds)).ravel()
        part, new = jax.lax.scan(
            lambda part, _: jax.vmap(train.round)(part),
            jax.tree.map(lambda leaf, rows=rows: leaf[rows], state),
            length=length,
        )
        state = jax.tree.map(lambda all_, some, rows=rows: all_.at[rows].set(some), state, part)
        metrics = _blank(new, count * num_seeds, total) if metrics is None else metrics
        where = (rows[:, None], done + jnp.arange(length))
        metrics = jax.tree.map(
            lambda all_, some, where=where: all_.at[where].set(jnp.moveaxis(some, 0, 1)),
            metrics,
            new,
        )
        done += length
        evaluations = evaluations.at[alive].set(done)
        if rung < rungs:
            scores = new.eval_return[-1].reshape(-1, num_seeds).mean(1)
            alive = alive[keep_best(scores, -(-len(alive) // 2))]
    state, metrics = unflatten_members((state, metrics), settings, num_seeds)
    return Halving(Runs(Stacked(state), metrics, settings), evaluations)


def _blank(metrics: Metrics, members: int, num_evals: int) -> Metrics:
    """Metrics of nothing, `[members, num_evals]`: NaN, or −1 where they count."""

    def blank(leaf: Array) -> Array:
        missing = jnp.nan if jnp.issubdtype(leaf.dtype, jnp.floating) else -1
        return jnp.full((members, num_evals, *leaf.shape[2:]), missing, leaf.dtype)

    return jax.tree.map(blank, metrics)


class PopulationState(NamedTuple):
    """All that the next round of population-based training needs, arrays only.

    Attributes:
        members: training states, `[members, ...]`; each holds its own hyperparameters.
        scores: returns of the latest evaluation, `[members]`.
        key: random key for what follows.
    """

    members: TrainState
    scores: Float[Array, " members"]
    key: Array


class PopulationMetrics(NamedTuple):
    """One round; with an axis `[num_evals]` in front from `Population.__call__`.

    Attributes:
        metrics: of each member, `[members]`.
        hyperparameters: those that each member trained with in this round, `[members]`.
        parents: whose weights each member started the round from, `[members]`; its own index if it kept them.
    """

    metrics: Metrics
    hyperparameters: Hyperparameters
    parents: Int[Array, " members"]


def exploit_and_explore(
    key: Array,
    members: TrainState,
    scores: Float[Array, " members"],
    space: Mapping[str, Distribution],
    fraction: float = 0.25,
) -> tuple[TrainState, Int[Array, " members"]]:
    """Replace the worst members by perturbed copies of the best.

    The worst `fraction` take parameters, optimizer states, multipliers, observation statistics and
    hyperparameters from the best `fraction`, and then move each hyperparameter of `space` to a neighbouring value
    inside its bounds. Their own environments and random keys go on. A member is only replaced by one whose score
    is strictly higher; what is not finite counts as lowest.

    Args:
        key: a JAX random key.
        members: `[members, ...]`.
        scores: the higher the better.
        space: which hyperparameters move, and within which bounds.
        fraction: share of members to replace, and to copy from.

    Returns:
        The members, and whom each was copied from (its own index if it was not).

    Source: Jaderberg et al. (arXiv 1711.09846), truncation selection.
    """
    count = len(scores)
    moved = max(1, int(fraction * count))
    scores = lowest_unless_finite(scores)
    order = jnp.argsort(scores)
    pair_key, *keys = jax.random.split(key, 1 + len(space))
    best = jax.random.permutation(pair_key, order[count - moved :])
    own = jnp.arange(count)
    parents = own.at[order[:moved]].set(best)
    parents = jnp.where(scores[parents] > scores, parents, own)
    copied = jax.tree.map(lambda leaf: leaf[parents], members)
    hyperparameters = copied.hyperparameters
    for name, stream in zip(space, keys, strict=True):
        value = getattr(hyperparameters, name)
        moved_value = jnp.where(parents != own, space[name].perturb(stream, value), value)
        hyperparameters = hyperparameters._replace(**{name: moved_value})
    rollout = members.rollout._replace(statistics=copied.rollout.statistics)
    members = members._replace(
        learner=copied.learner, rollout=rollout, hyperparameters=hyperparameters
    )
    return members, parents


@dataclasses.dataclass(frozen=True, eq=False)
class Population:
    """`population(key) -> (state, metrics)`, and the steps it is made of. Build with `make_population`."""

    train: Train
    space: Mapping[str, Distribution]
    num_members: int
    base: Hyperparameters
    fraction: float
    mesh: Mesh | None

    def __call__(self, key: Array) -> tuple[PopulationState, PopulationMetrics]:
        """Train for `config.total_steps` per member; metrics have a leading axis `[num_evals]`."""
        return jax.lax.scan(
            lambda state, _: self.round(state), self.init(key), length=self.train.config.num_evals
        )

    def init(self, key: Array) -> PopulationState:
        """Members with hyperparameters drawn from the space, and no scores yet."""
        draw_key, member_key, key = jax.random.split(key, 3)
        settings = sample(draw_key, self.num_members, self.base, **self.space)
        keys = jax.random.split(member_key, self.num_members)
        members = over_members(self.train.init, self.mesh)(keys, settings)
        return PopulationState(members, jnp.zeros(self.num_members), key)

    def round(self, state: PopulationState) -> tuple[PopulationState, PopulationMetrics]:
        """Copy and perturb by the latest scores (equal at first, which copies nothing), then train and evaluate."""
        evolve_key, key = jax.random.split(state.key)
        members, parents = exploit_and_explore(
            evolve_key, state.members, state.scores, self.space, self.fraction
        )
        settings = members.hyperparameters
        members, metrics = over_members(self.train.round, self.mesh)(members)
        new = PopulationState(members, metrics.eval_return, key)
        return new, PopulationMetrics(metrics, settings, parents)


def make_population(
    train: Train,
    space: Mapping[str, Distribution],
    *,
    num_members: int,
    base: Hyperparameters | None = None,
    fraction: float = 0.25,
    mesh: Mesh | None = None,
) -> Population:
    """Bind population-based training: after each evaluation the worst members become perturbed copies of the best.

    Args:
        train: from `make_train`; evaluations happen `config.num_evals` times.
        space: `{name: log_uniform(...) | uniform(...) | choice(...)}`, from which members start, and whose bounds
            they never leave.
        num_members: size of the population.
        base: values of everything else; the defaults if none.
        fraction: share of members replaced each time, at most a half.
        mesh: devices to lay the members over; must divide them evenly.

    Returns:
        A callable with the methods `init` and `round`; see `Population`. All are pure and can be jitted.

    Raises:
        ValueError: for an unknown name, one that only acts at the start, a bound out of range, fewer than two
            members, or a fraction outside (0, 0.5].

    >>> from reppo_fx import Config, Hyperparameters, log_uniform, make_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=96, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=3, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> train = make_train(probes.match_observation(), config)
    >>> population = make_population(train, {"learning_rate": log_uniform(1e-4, 1e-2)}, num_members=4)
    >>> state, history = jax.jit(population)(jax.random.key(0))
    >>> history.hyperparameters.learning_rate.shape, history.parents[0]
    ((3, 4), Array([0, 1, 2, 3], dtype=int32))
    """
    base = Hyperparameters() if base is None else base
    check_distributions(space, base)
    for name, distribution in space.items():
        if name in ONLY_AT_THE_START:
            raise ValueError(
                f"{name} only acts at the start of a run, so it cannot evolve; leave it out."
            )
        if not isinstance(distribution, Distribution):
            raise ValueError(
                f"{name} is {distribution!r}; it must be log_uniform, uniform or choice."
            )
    if num_members < 2:
        raise ValueError(f"num_members is {num_members}; a population has at least 2.")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"fraction is {fraction}; it must be in (0, 0.5].")
    if mesh is not None and num_members % mesh.size:
        raise ValueError(
            f"num_members is {num_members}; the {mesh.size} devices must divide it evenly."
        )
    return Population(train, dict(space), num_members, base, fraction, mesh)
