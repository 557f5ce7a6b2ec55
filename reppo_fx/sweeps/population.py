"""Population-based training as a transform over the member axis.

It is possible inside one program because hyperparameters are part of a member's state: copying and perturbing
members is indexing into arrays.
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
    keep_program,
    lowest_unless_finite,
    over_members,
)
from .mesh import require_even
from .space import Distribution, check_distributions, sample

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
    "entropy_share",
    "aux_weight",
    "sigma",
    "temperature_rate",
    "multiplier_rate",
    "min_temperature",
    "min_temperature_spread",
    "exploration_noise_min",
    "exploration_noise_max",
    "exploration_base",
    "exploration_density",
    "noise_correlation",
    "min_trace_weight",
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
    """`population(key) -> (state, metrics)`, and the steps it is made of. Build with `make_population`.

    Attributes:
        train: what members are trained with.
        space: which hyperparameters evolve, and within which bounds.
        num_members: size of the population.
        base: values of all other hyperparameters.
        fraction: share of members that are replaced each time.
        mesh: devices that members are laid over; none: one.
    """

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
