"""Population methods as transforms over the member axis: successive halving and population-based training.

Both are possible inside one program because hyperparameters are part of a member's state: dropping, copying
and perturbing members is indexing into arrays.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping
from typing import NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from .._keys import as_key
from .._ranges import as_count, as_number
from ..learner.state import TrainState
from ..settings import Hyperparameters
from ..training.train import Metrics, Train
from .members import (
    Stacked,
    flatten_members,
    keep_program,
    lowest_unless_finite,
    num_settings,
    over_members,
    unflatten_members,
)
from .mesh import require_even
from .space import Distribution, check_distributions, sample
from .sweep import Runs

# What these change is what is learned from now on. The discount is among them: a Q of the old one is a wrong guess
# in the right unit, which the next targets correct.
MAY_EVOLVE = (
    "learning_rate",
    "final_learning_rate",
    "max_grad_norm",
    "discount",
    "trace_decay",
    "kl_target",
    "entropy_target",
    "aux_weight",
)
# What these change is what was learned already: the same parameters mean something else afterwards.
FIXED_IN_A_RUN = {
    "initial_temperature": "it only acts at the start of a run",
    "initial_multiplier": "it only acts at the start of a run",
    "v_min": "the critic's outputs are shares of bins between v_min and v_max, so it would rescale a learned Q",
    "v_max": "the critic's outputs are shares of bins between v_min and v_max, so it would rescale a learned Q",
    "reward_scale": "Q and the temperature were learned in units of the scaled reward",
    "min_std": "it is part of the policy: a copy would act differently from the one whose score it was chosen for",
    "variance_floor": "it is part of what the networks see: the same weights would get other inputs",
}


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
    num_seeds: SupportsIndex,
    key: Array,
    rungs: SupportsIndex = 2,
    freed: str = "rest",
) -> Halving:
    """Train all settings, and drop the worse half at each rung by their mean return over seeds.

    One pure program: can be jitted, and is when called plainly (compiled once for each `train` and number of
    members). The member axis shrinks at each rung, so the compiler sees one training loop per rung. Where scores
    are equal the earlier setting stays; a setting with a score that is not finite goes before all others.

    Random numbers are as in `sweep`: with keys of the kinds `rbg` and `unsafe_rbg` those of a member depend on who
    is beside it, so a survivor is not the run of a plain sweep.

    Args:
        train: from `make_train`; survivors train for its `config.total_steps`.
        settings: leaves `[settings]`, e.g. from `sample`.
        num_seeds: runs per setting, which live and fall together.
        key: a random key of either style; split into one per seed.
        rungs: how often to drop half.
        freed: what becomes of the compute of dropped settings. `"rest"`: drop early, at rungs that double in
            length, so that each costs the same and most of it goes to the survivors. `"stop"`: rungs of equal
            length, so that settings are judged later.

    Returns:
        The runs, and how long each setting lived.

    Raises:
        ValueError: if a setting is out of range, the leaves of `settings` do not share one axis, there are too few
            settings or evaluations, or `key` is no random key.

    Source: Jamieson & Talwalkar (arXiv 1502.07943).
    """
    num_rungs, num_seeds = as_count("rungs", rungs), as_count("num_seeds", num_seeds)
    keys, members = flatten_members(settings, num_seeds, key)
    count = num_settings(settings)
    lengths = tuple(halving_schedule(train.config.num_evals, num_rungs, freed))
    if count < 2**num_rungs:
        raise ValueError(
            f"{count} settings cannot be halved {num_rungs} times; give {2**num_rungs} or more."
        )
    alive = weakref.ref(train)  # traced only while `train` is held here

    def program(keys: Array, members: Hyperparameters) -> _Halved:
        function = alive()
        assert function is not None
        return _halve(function, keys, members, num_seeds, lengths)

    kept = keep_program(train, ("halving", num_seeds, lengths), lambda: jax.jit(program))
    state, metrics, evaluations = kept(keys, members)
    state, metrics = unflatten_members((state, metrics), settings, num_seeds)
    return Halving(Runs(Stacked(state), metrics, settings), evaluations)


_Halved = tuple[TrainState, Metrics, Int[Array, " settings"]]


def _halve(
    train: Train, keys: Array, members: Hyperparameters, num_seeds: int, lengths: tuple[int, ...]
) -> _Halved:
    """States and metrics `[members, ...]`, and how many evaluations each setting was trained for."""
    state = over_members(train.init)(keys, members)
    step = over_members(train.round)
    count = len(keys) // num_seeds
    _, shapes = jax.eval_shape(step, state)
    metrics = _blank(shapes, len(keys), sum(lengths))
    alive, done = jnp.arange(count), 0
    evaluations = jnp.zeros(count, jnp.int32)
    for rung, length in enumerate(lengths):
        rows = (alive[:, None] * num_seeds + jnp.arange(num_seeds)).ravel()
        part, new = jax.lax.scan(
            lambda part, _: step(part),
            jax.tree.map(lambda leaf, rows=rows: leaf[rows], state),
            length=length,
        )
        state = jax.tree.map(lambda all_, some, rows=rows: all_.at[rows].set(some), state, part)
        where = (rows[:, None], done + jnp.arange(length))
        metrics = jax.tree.map(
            lambda all_, some, where=where: all_.at[where].set(
                jnp.moveaxis(some, 0, 1).astype(all_.dtype)
            ),
            metrics,
            new,
        )
        done += length
        evaluations = evaluations.at[alive].set(done)
        if rung < len(lengths) - 1:
            scores = new.eval_return[-1].reshape(-1, num_seeds).mean(1)
            alive = alive[keep_best(scores, -(-len(alive) // 2))]
    return state, metrics, evaluations


def _blank(shapes: Metrics, members: int, num_evals: int) -> Metrics:
    """Metrics of nothing, `[members, num_evals]`: NaN, or −1 where they count; what holds neither is made float."""

    def blank(leaf: jax.ShapeDtypeStruct) -> Array:
        counts = jnp.issubdtype(leaf.dtype, jnp.signedinteger)
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        dtype = leaf.dtype if counts or floating else jnp.result_type(float)
        return jnp.full((members, num_evals, *leaf.shape[1:]), -1 if counts else jnp.nan, dtype)

    nothing: Metrics = jax.tree.map(blank, shapes)
    return nothing


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
        key: a random key, typed or raw.
        members: `[members, ...]`.
        scores: the higher the better.
        space: which hyperparameters move, and within which bounds; only those of `MAY_EVOLVE` can.
        fraction: share of members to replace, and to copy from, at most a half.

    Returns:
        The members, and whom each was copied from (its own index if it was not).

    Raises:
        ValueError: as `make_population`; or if there is not one score for each member.

    Source: Jaderberg et al. (arXiv 1711.09846), truncation selection.
    """
    _check_space(space, Hyperparameters())
    share, count = _check_fraction(fraction), len(scores)
    if members.iteration.shape != (count,):
        raise ValueError(
            f"scores has {count} entries, but members have the axes {list(members.iteration.shape)}."
        )
    moved = max(1, int(share * count + 1e-6))
    scores = lowest_unless_finite(scores)
    order = jnp.argsort(scores)
    pair_key, *keys = jax.random.split(as_key(key), 1 + len(space))
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
        learner=copied.learner,
        rollout=rollout,
        hyperparameters=hyperparameters,
        diverged_at=copied.diverged_at,  # goes with the optimizer states that count dropped steps
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
        """Train for `config.total_steps` per member; metrics have a leading axis `[num_evals]`.

        Called plainly it is one program, compiled once for each population; within `jit` it is part of that one.
        """
        alive = weakref.ref(self)  # traced only while `self` is held here

        def program(key: Array) -> tuple[PopulationState, PopulationMetrics]:
            population = alive()
            assert population is not None
            length = population.train.config.num_evals
            state = population.init(key)
            trained: tuple[PopulationState, PopulationMetrics] = jax.lax.scan(
                lambda state, _: population.round(state), state, length=length
            )
            return trained

        kept = keep_program(self, "population", lambda: jax.jit(program))
        result: tuple[PopulationState, PopulationMetrics] = kept(as_key(key))
        return result

    def init(self, key: Array) -> PopulationState:
        """Members with hyperparameters drawn from the space, and no scores yet."""
        draw_key, member_key, key = jax.random.split(as_key(key), 3)
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
    num_members: SupportsIndex,
    base: Hyperparameters | None = None,
    fraction: float = 0.25,
    mesh: Mesh | None = None,
) -> Population:
    """Bind population-based training: after each evaluation the worst members become perturbed copies of the best.

    Only what changes learning from now on can evolve. What changes the meaning of what was learned is refused:
    v_min and v_max (they rescale a learned Q), reward_scale (Q was learned in other units), min_std (it is part of
    the policy) and variance_floor (it is part of the networks' inputs). The discount may: the old Q is then a wrong
    guess, but one in the right unit, which the next targets correct. Search for the others with `sweep`.

    Keys of the kinds `rbg` and `unsafe_rbg` draw the numbers of all members from the first one's key, as in
    `sweep`: the numbers of a member depend on who is beside it.

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
        ValueError: for an empty space, an unknown name, one that cannot evolve, a bound out of range, fewer than
            two members, or a fraction outside (0, 0.5].

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
    _check_space(space, base)
    count, share = as_count("num_members", num_members), _check_fraction(fraction)
    if count < 2:
        raise ValueError(f"num_members is {count}; a population has at least 2.")
    require_even("num_members", count, mesh)
    return Population(train, dict(space), count, base, share, mesh)


def _check_space(space: Mapping[str, Distribution], base: Hyperparameters) -> None:
    """Raise a sentence unless every name may evolve, within bounds that are in range."""
    if not space:
        raise ValueError("space is empty; name at least one hyperparameter that may evolve.")
    check_distributions(space, base)
    for name, distribution in space.items():
        if name not in MAY_EVOLVE:
            why = FIXED_IN_A_RUN.get(name, "it is not known to leave what was learned as it is")
            raise ValueError(
                f"{name} cannot evolve: {why}. Those that can: {', '.join(MAY_EVOLVE)}."
            )
        if not isinstance(distribution, Distribution):
            raise ValueError(
                f"{name} is {distribution!r}; it must be log_uniform, uniform or choice."
            )


def _check_fraction(fraction: object) -> float:
    share = as_number("fraction", fraction)
    if not 0 < share <= 0.5:
        raise ValueError(f"fraction is {fraction}; it must be in (0, 0.5].")
    return share
