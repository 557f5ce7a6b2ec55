"""What a diverging simulator gives is ended, counted, and kept from everything else."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PyTree

from .base import Environment, Observation, State, TimeStep
from .conform import standard_timestep

# Far above what any task shows or pays (contact forces reach 1e5), and still harmless: its square, 1e12, can be
# added up in float32 for as long as one likes, while 1e20 squared is infinite.
LIMIT = 1e6
"""Observations and rewards beyond this magnitude are failures of the simulator, unless said otherwise."""
COUNTERS = ("nonfinite", "nonfinite_resets")
"""Metrics that count failures: added up, never averaged, and not the simulator's own."""
# With every second reset bad, one start in a thousand is still bad after so many.
RESET_TRIES = 10
"""How often a bad start is drawn again."""


class ContainState(NamedTuple):
    """What containment remembers.

    Attributes:
        inner: the environment's own state.
        observation: the last good observation.
        failed: the start was bad after every try; the first step ends it.
        nonfinite_resets: bad resets that no step has reported yet.
    """

    inner: State
    observation: Observation
    failed: Bool[Array, "*batch"]
    nonfinite_resets: Float[Array, "*batch"]


class _Draw(NamedTuple):
    """A start, whether it is bad, the draws so far, and the key for the next."""

    key: Array
    tries: Int[Array, ""]
    bad: Bool[Array, ""]
    state: State
    observation: Observation


@dataclasses.dataclass(frozen=True, eq=False)
class ContainedReset:
    """A reset that draws again until the start is good; `once` leaves it at one draw, for who has a start."""

    draw: Callable[[Array, int], tuple[ContainState, Observation]]
    tries: int

    def __call__(self, key: Array) -> tuple[ContainState, Observation]:
        return self.draw(key, self.tries)

    def once(self, key: Array) -> tuple[ContainState, Observation]:
        return self.draw(key, 1)


def contain_nan(
    env: Environment, limit: float | int = LIMIT, tries: int = RESET_TRIES
) -> Environment:
    """End an episode whose reward or observation is not finite or beyond `limit`; let nothing of it out.

    Such a step gives reward 0, `terminated`, and the last good observation as successor; it has
    `metrics["nonfinite"]` 1, at such steps only, so that a learner can leave it out: as an end with reward 0 it
    would pay wherever rewards are negative. Put `auto_reset` outside: it replaces the whole state. A
    non-finite value in the *state* is caught at the step where it reaches reward or observation. Metrics that
    are not finite, and all of a contained step, are 0.

    A bad reset is drawn again with another key. What is bad after all tries starts with an observation of zeros
    and is contained at its first step. `metrics["nonfinite_resets"]` of the next step counts every bad draw.

    Args:
        env: the environment, for one instance.
        limit: largest magnitude of an observation or reward that is believed; `math.inf` believes
            everything finite. It must be within what a running variance in float32 survives.
        tries: draws for one reset; a batch of Warp's worlds is drawn once, whatever this says.

    Returns:
        The environment that gives nothing but what is believed.

    Raises:
        ValueError: if `limit` is not positive or `tries` is less than 1.

    >>> from reppo_fx.envs import probes
    >>> env = contain_nan(probes.constant_reward(), limit=0.5, tries=1)  # a reward of 1 is too large
    >>> state, _ = env.reset(jax.random.key(0))
    >>> state, timestep = env.step(state, jnp.zeros(1))
    >>> print(timestep.reward, timestep.terminated, timestep.metrics["nonfinite"])
    0.0 True 1.0
    """
    if not limit > 0:
        raise ValueError(f"limit is {limit}; it must be positive (math.inf for no limit).")
    if tries < 1:
        raise ValueError(f"tries is {tries}; a reset needs at least 1.")

    def draw(key: Array, tries: int) -> tuple[ContainState, Observation]:
        return contained(
            _draw_start(draw_once(env) if tries == 1 else env.reset, key, limit, tries)
        )

    def restart(key: Array, state: ContainState) -> tuple[ContainState, Observation]:
        again = next_start(env)
        return contained(_draw_start(lambda key: again(key, state.inner), key, limit, 1))

    def contained(start: _Draw) -> tuple[ContainState, Observation]:
        observation = where(
            start.bad, jax.tree.map(jnp.zeros_like, start.observation), start.observation
        )
        bad_draws = start.tries - 1 + start.bad
        counted = bad_draws.astype(jnp.result_type(float))
        return ContainState(start.state, observation, start.bad, counted), observation

    def step(state: ContainState, action: Array) -> tuple[ContainState, TimeStep]:
        inner, timestep = env.step(state.inner, action)
        timestep = _cleaned(standard_timestep(env.name, timestep), state, limit)
        reported = jnp.zeros_like(state.nonfinite_resets)
        return ContainState(inner, timestep.observation, state.failed, reported), timestep

    def refresh(state: ContainState) -> ContainState:
        return state._replace(inner=env.refresh(state.inner))

    return env._replace(
        reset=ContainedReset(draw, tries),
        step=step,
        refresh=refresh,
        restart=restart if env.restart else None,
    )


def _cleaned(timestep: TimeStep, state: ContainState, limit: float) -> TimeStep:
    """A time step of which nothing bad is left, and which says so."""
    seen = (timestep.reward, timestep.next_observation, timestep.observation)
    bad = state.failed | ~_all_within(seen, limit)
    metrics = {
        name: jnp.where(jnp.isfinite(value) & ~bad, value, 0.0)
        for name, value in timestep.metrics.items()
    }
    # Where the environment contains already, its own steps and resets are counted along.
    counts = {
        "nonfinite": bad | (metrics.get("nonfinite", 0.0) > 0),
        "nonfinite_resets": metrics.get("nonfinite_resets", 0.0) + state.nonfinite_resets,
    }
    metrics |= {name: count.astype(timestep.reward.dtype) for name, count in counts.items()}
    return TimeStep(
        observation=where(bad, state.observation, timestep.observation),
        next_observation=where(bad, state.observation, timestep.next_observation),
        reward=jnp.where(bad, 0.0, timestep.reward),
        terminated=timestep.terminated | bad,
        truncated=timestep.truncated & ~bad,
        metrics=metrics,
    )


def draw_once(env: Environment) -> Callable[[Array], tuple[State, Observation]]:
    """A reset without a second try, where there is one."""
    reset = env.reset
    return reset.once if isinstance(reset, ContainedReset) else reset


def next_start(env: Environment) -> Callable[[Array, State], tuple[State, Observation]]:
    """`(key, state) -> (state, observation)`, one draw: with what outlives an episode, if anything does."""
    if env.restart is not None:
        return env.restart
    once = draw_once(env)
    return lambda key, state: once(key)


def start_failed(state: State) -> Array | None:
    """Whether a state is a start that stayed bad; none if nothing in it is contained."""
    failed = None
    for node in filter(_is_contained, jax.tree.leaves(state, is_leaf=_is_contained)):
        within = start_failed(node.inner)
        here = node.failed if within is None else node.failed | within
        failed = here if failed is None else failed | here
    return failed


def move_counts(giver: State, taker: State) -> tuple[State, State]:
    """The bad resets that `giver` has not reported yet become those of `taker`."""
    none = _with_counts(giver, giver, lambda own, _: jnp.zeros_like(own))
    both = _with_counts(taker, giver, lambda own, others: own + others)
    return none, both


def _with_counts(state: State, other: State, count: Callable[[Array, Array], Array]) -> State:
    """Every count in a state, made of it and of that in its place in another state."""

    def counted(node: State, opposite: State) -> State:
        if not _is_contained(node):
            return node
        return node._replace(
            inner=_with_counts(node.inner, opposite.inner, count),
            nonfinite_resets=count(node.nonfinite_resets, opposite.nonfinite_resets),
        )

    return jax.tree.map(counted, state, other, is_leaf=_is_contained)


def _is_contained(node: object) -> TypeGuard[ContainState]:
    return isinstance(node, ContainState)


def _draw_start(
    reset: Callable[[Array], tuple[State, Observation]], key: Array, limit: float | int, tries: int
) -> _Draw:
    """Draws until one is good. The reset is in the program only once: a simulator's compiles for long."""
    if tries == 1 or _has_shared_leaves(jax.eval_shape(reset, key)[0]):
        state, observation = reset(key)
        bad = ~_all_within(observation, limit)
        return _Draw(key, jnp.ones((), jnp.int32), bad, state, observation)
    reset = jax.jit(reset, inline=True)  # one trace for the shapes and the loop

    def draw(last: _Draw) -> _Draw:
        state, observation = reset(last.key)
        bad = ~_all_within(observation, limit)
        return _Draw(jax.random.fold_in(last.key, 1), last.tries + 1, bad, state, observation)

    blank = jax.tree.map(
        lambda leaf: jax.lax.full(leaf.shape, 0, leaf.dtype), jax.eval_shape(reset, key)
    )
    first = _Draw(key, jnp.zeros((), jnp.int32), jnp.asarray(True), *blank)
    return jax.lax.while_loop(lambda last: last.bad & (last.tries < tries), draw, first)


def _all_within(tree: Observation, limit: float | int) -> Array:
    """Whether every number is one, and none is beyond the limit."""
    checks = [jnp.all(_within(jnp.asarray(leaf), limit)) for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, checks)


def _within(x: Array, limit: float | int) -> Array:
    if x.dtype == jnp.bool:
        return jnp.ones((), bool)
    lowest, highest = believed(x.dtype, limit)
    return (x >= lowest) & (x <= highest)


def believed(dtype: DTypeLike, limit: float | int) -> tuple[float | int, float | int]:
    """The lowest and the highest number of a type that is no failure; NaN is not between them.

    Args:
        dtype: of the numbers.
        limit: largest magnitude that is believed; `math.inf` believes everything finite.

    Returns:
        The two numbers, as Python's.

    >>> believed(jnp.float32, 1e6), believed(jnp.int8, 1e6)
    ((-1000000.0, 1000000.0), (-128, 127))
    """
    if jnp.issubdtype(dtype, jnp.integer):
        # A NaN that was cast to an integer is its lowest or highest number.
        info = np.iinfo(dtype)
        return int(max(-limit, info.min)), int(min(limit, info.max))
    # Half precision ends before the limit does: there, the limit is its largest finite number.
    largest = min(limit, float(jnp.finfo(dtype).max))
    return -largest, largest


def where(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """One of two trees, by a scalar condition; a node that knows how it is merged (`mjx.Data`) is asked."""

    def choose(x: PyTree, y: PyTree) -> PyTree:
        return y.where(condition, x) if _merges_itself(x) else jnp.where(condition, x, y)

    return jax.tree.map(choose, on_true, on_false, is_leaf=_merges_itself)


def _merges_itself(node: object) -> bool:
    """Whether a node has a `where` of its own: some of its leaves are shared by all instances of a batch."""
    return hasattr(node, "where") and not isinstance(node, jax.Array | jax.ShapeDtypeStruct)


def _has_shared_leaves(state: State) -> bool:
    """Whether some leaves belong to a whole batch (Warp's contacts): no loop can draw those for one instance."""
    shared = []

    def merge(own: State, other: State) -> None:
        merged = own.where(jnp.asarray(True), other)
        pairs = zip(jax.tree.leaves(merged), jax.tree.leaves(own), strict=True)
        shared.append(any(new is old for new, old in pairs))

    for node in filter(_merges_itself, jax.tree.leaves(state, is_leaf=_merges_itself)):
        jax.eval_shape(merge, node, node)
    return any(shared)
