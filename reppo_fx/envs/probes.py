"""Probe environments: they learn in seconds, and the right answer is known in closed form.

Observations and actions have one number each unless said otherwise. γ is the discount, α the temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from .base import Environment, Observation, State, TimeStep


class ProbeState(NamedTuple):
    """Key for the next draw, the number shown, and the step within the episode."""

    key: Array
    shown: Array
    step: Array


Draw = Callable[[Array, Array], Array]
Reward = Callable[[Array, Array, Array], Array]


def _draw_sign(key: Array) -> Array:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def _probe(name: str, draw: Draw, reward: Reward, length: int | None = None) -> Environment:
    """A probe that shows `draw(key, step)` and pays `reward(shown, step, action)`; ends after `length`."""

    def reset(key: Array) -> tuple[ProbeState, Array]:
        key, draw_key = jax.random.split(key)
        start = jnp.zeros((), jnp.int32)
        shown = draw(draw_key, start)
        return ProbeState(key, shown, start), shown[None]

    def step(state: ProbeState, action: Array) -> tuple[ProbeState, TimeStep]:
        key, draw_key = jax.random.split(state.key)
        clock = state.step + 1
        shown = draw(draw_key, clock)
        ended = jnp.asarray(False) if length is None else clock >= length
        timestep = TimeStep(
            observation=shown[None],
            next_observation=shown[None],
            reward=reward(state.shown, state.step, action),
            terminated=ended,
            truncated=jnp.asarray(False),
            metrics={},
        )
        return ProbeState(key, shown, clock), timestep

    observation = jax.ShapeDtypeStruct((1,), jnp.result_type(float))
    return Environment(name, reset, step, observation, action_size=1, cheap_reset=True)


def constant_reward() -> Environment:
    """Reward 1 at every step, forever: `V = 1/(1−γ)`; only a bootstrap at the time limit gets it right."""
    return _probe("constant_reward", lambda key, step: jnp.zeros(()), lambda x, t, a: jnp.ones(()))


def reward_by_observation() -> Environment:
    """One-step episodes that pay the number shown (−1 or 1): `V(x) = x`."""
    return _probe(
        "reward_by_observation", lambda key, step: _draw_sign(key), lambda x, t, a: x, length=1
    )


def two_step_credit() -> Environment:
    """Shows 0 then 1, pays 1 at the second and last step: `V(0) = γ`, `V(1) = 1`."""
    return _probe(
        "two_step_credit",
        lambda key, step: step.astype(float),
        lambda x, t, a: t.astype(float),
        length=2,
    )


def match_observation() -> Environment:
    """One-step episodes that pay `1 − (a − x/2)²` for a shown `x` of −1 or 1: best action `x/2`."""
    return _probe(
        "match_observation",
        lambda key, step: _draw_sign(key),
        lambda x, t, a: 1.0 - jnp.square(a[0] - 0.5 * x),
        length=1,
    )


def terminating_reward(length: int) -> Environment:
    """Reward 1 per step and a true end after `length` steps, the step shown: `V_t = (1−γ^{L−t})/(1−γ)`."""
    return _probe(
        "terminating_reward",
        lambda key, step: step.astype(float) / length,
        lambda x, t, a: jnp.ones(()),
        length=length,
    )


def constant_cost() -> Environment:
    """Reward −1 at every step, forever: `V = −1/(1−γ)`, so that any end that pays nothing pays."""
    return _probe("constant_cost", lambda key, step: jnp.zeros(()), lambda x, t, a: -jnp.ones(()))


def bandit(rewards: Sequence[float | int] = (0.0, 0.5, 1.0)) -> Environment:
    """One-step episodes of discrete actions: pays `rewards[a]` where 1 is shown, and in reverse order where −1 is.

    `Q(x, a)` is that, and the best policy of a temperature α has `π(a|x) ∝ exp(Q(x, a) / α)`.
    """
    count = len(rewards)

    def reward(shown: Array, step: Array, action: Array) -> Array:
        paid = jnp.asarray(rewards, jnp.result_type(float))
        return paid[jnp.where(shown > 0, action, count - 1 - action)]

    env = _probe("bandit", lambda key, step: _draw_sign(key), reward, length=1)
    return env._replace(num_actions=count)


def two_step_choice() -> Environment:
    """Two discrete actions, twice: shows 0, then 1 or −1 for a first action of 1 or 0, then ends.

    The second action pays 1 where it is 1 at 1, a half where it is 0 at −1, and else nothing: `Q(1, ·) = (0, 1)`,
    `Q(−1, ·) = (1/2, 0)`. With `V(x) = α log Σ_a exp(Q(x, a) / α)`, which is that of the best policy with its
    entropy, `Q(0, 1) = γ V(1)` and `Q(0, 0) = γ V(−1)`.
    """

    def reset(key: Array) -> tuple[ProbeState, Array]:
        zero = jnp.zeros(())
        return ProbeState(key, zero, jnp.zeros((), jnp.int32)), zero[None]

    def step(state: ProbeState, action: Array) -> tuple[ProbeState, TimeStep]:
        second = state.step > 0
        paid = jnp.array([[0.5, 0.0], [0.0, 1.0]])[(state.shown > 0).astype(int), action]
        shown = jnp.where(second, 0.0, jnp.where(action == 1, 1.0, -1.0))
        timestep = TimeStep(
            observation=shown[None],
            next_observation=shown[None],
            reward=jnp.where(second, paid, 0.0),
            terminated=second,
            truncated=jnp.asarray(False),
            metrics={},
        )
        return ProbeState(state.key, shown, state.step + 1), timestep

    observation = jax.ShapeDtypeStruct((1,), jnp.result_type(float))
    return Environment(
        "two_step_choice",
        reset,
        step,
        observation,
        action_size=1,
        cheap_reset=True,
        num_actions=2,
    )


class MaskState(NamedTuple):
    """Key for the next mask, the mask shown, and the state within."""

    key: Array
    mask: Array
    inner: State


def masked(inner: Environment, price: float | int = 100.0) -> Environment:
    """`inner` with discrete actions of which some are ruled out at every step, at random, and the others never all.

    Shows `state` and `action_mask`. An action that is ruled out pays `price`, which nobody is to find out.
    """
    count = inner.num_actions
    if count is None:
        raise ValueError(f"{inner.name} has no discrete actions, so none can be ruled out.")

    def draw(key: Array) -> Array:
        some_key, one_key = jax.random.split(key)
        one = jax.random.randint(one_key, (), 0, count)
        return jax.random.bernoulli(some_key, 0.5, (count,)) | (jnp.arange(count) == one)

    def shown(mask: Any, observation: Observation) -> dict[str, Any]:
        return {"state": observation, "action_mask": mask}

    def reset(key: Array) -> tuple[MaskState, Observation]:
        key, mask_key, reset_key = jax.random.split(key, 3)
        mask = draw(mask_key)
        state, observation = inner.reset(reset_key)
        return MaskState(key, mask, state), shown(mask, observation)

    def step(state: MaskState, action: Array) -> tuple[MaskState, TimeStep]:
        key, mask_key = jax.random.split(state.key)
        mask = draw(mask_key)
        after, timestep = inner.step(state.inner, action)
        timestep = timestep._replace(
            reward=jnp.where(state.mask[action], timestep.reward, price),
            observation=shown(mask, timestep.observation),
            next_observation=shown(mask, timestep.next_observation),
        )
        return MaskState(key, mask, after), timestep

    return inner._replace(
        name=f"masked({inner.name})",
        reset=reset,
        step=step,
        observation=shown(jax.ShapeDtypeStruct((count,), jnp.bool_), inner.observation),
        action_mask="action_mask",
        restart=None,
    )


def nan_bomb(
    inner: Environment, probability: float | int | Callable[[Array], Array] = 0.01
) -> Environment:
    """`inner`, but some steps give NaN for reward, observation and state, as a diverging simulator does.

    The probability may be a function of the action. A bomb is an accident of the simulator, no property of the
    task: the right values are those of `inner`.
    """

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        key, inner_state = state
        key, bomb_key = jax.random.split(key)
        inner_state, timestep = inner.step(inner_state, action)
        chance = probability(action) if callable(probability) else probability
        fuse = jnp.where(jax.random.bernoulli(bomb_key, chance), jnp.nan, 0.0)
        return (key, _add(fuse, inner_state)), _add(fuse, timestep)

    return _with_key(inner)._replace(name=f"nan_bomb({inner.name})", step=step)


def tempting_bomb() -> Environment:
    """Pays `−1 − (a + 1/2)²` at every step, and NaN with probability `(1 + a)/5`; shows always 0.

    The best action is −1/2 and `V = −1/(1−γ)`. A learner that takes a NaN for the end of the episode finds that
    it saves every later cost, and looks for it: with γ = 0.9 its best action is above 0.
    """
    inner = _probe(
        "tempting_bomb",
        lambda key, step: jnp.zeros(()),
        lambda x, t, a: -1.0 - jnp.square(a[0] + 0.5),
    )
    env = nan_bomb(inner, lambda action: jnp.clip(0.2 * (1.0 + action[0]), 0.0, 1.0))
    return env._replace(name="tempting_bomb")


def outlier(
    inner: Environment, probability: float | int = 0.01, value: float | int = 1e20
) -> Environment:
    """`inner`, but some steps show `value` more than there is, as a glitch in contact forces does.

    Reward and state are those of `inner`, so nothing but the observation's size says that it is wrong.
    """

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        key, inner_state = state
        key, glitch_key = jax.random.split(key)
        inner_state, timestep = inner.step(inner_state, action)
        glitch = jnp.where(jax.random.bernoulli(glitch_key, probability), value, 0.0)
        return (key, inner_state), timestep._replace(
            observation=_add(glitch, timestep.observation),
            next_observation=_add(glitch, timestep.next_observation),
        )

    return _with_key(inner)._replace(name=f"outlier({inner.name})", step=step)


def nan_reset(
    inner: Environment, probability: float | int = 0.02, value: float | int = jnp.nan
) -> Environment:
    """`inner`, but some resets give `value` more than there is, NaN or absurd, in observation and state."""

    def spoiled(
        draw: Callable[[Array], tuple[State, Observation]], key: Array
    ) -> tuple[State, Observation]:
        key, spoil_key = jax.random.split(key)
        spoil = jnp.where(jax.random.bernoulli(spoil_key, probability), value, 0.0)
        state, observation = draw(key)
        return _add(spoil, state), _add(spoil, observation)

    def restart(key: Array, state: State) -> tuple[State, Observation]:
        again = inner.restart
        assert again is not None
        return spoiled(lambda key: again(key, state), key)

    return inner._replace(
        name=f"nan_reset({inner.name})",
        reset=lambda key: spoiled(inner.reset, key),
        restart=restart if inner.restart else None,
    )


def _with_key(inner: Environment) -> Environment:
    """`inner` with the state `(key, inner state)`; who changes `step` draws from the key."""

    def reset(key: Array) -> tuple[State, Observation]:
        key, reset_key = jax.random.split(key)
        state, observation = inner.reset(reset_key)
        return (key, state), observation

    def restart(key: Array, state: State) -> tuple[State, Observation]:
        assert inner.restart is not None
        key, reset_key = jax.random.split(key)
        new, observation = inner.restart(reset_key, state[1])
        return (key, new), observation

    return inner._replace(
        reset=reset,
        refresh=lambda state: (state[0], inner.refresh(state[1])),
        restart=restart if inner.restart else None,
    )


def _add(number: Array, tree: Observation) -> Observation:
    """A number added to every float of a tree."""

    def add(x: ArrayLike) -> Array:
        x = jnp.asarray(x)
        return x + number.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(add, tree)


class Signs(NamedTuple):
    """What the actor sees in `containers`: a number, and its sign as an integer in a tuple."""

    number: Array
    sign: tuple[Array]


class Shown(NamedTuple):
    """What `containers` shows: a NamedTuple of one, and of a dict of an image and a flag for the critic."""

    state: Signs
    privileged: dict[str, Array]


def containers(inner: Environment) -> Environment:
    """A probe that shows one number, in several containers and dtypes at once.

    Its reward has shape `[1]`, its flags are floats and one metric is a Python number: all of it is what
    `envs.conform` makes fit.
    """

    def show(observation: Array) -> Shown:
        x = observation[0]
        picture = jnp.full((1, 5), x, jnp.float16)
        signs = Signs(x, (jnp.sign(x).astype(jnp.int8),))
        return Shown(signs, {"picture": picture, "positive": x > 0})

    def reset(key: Array) -> tuple[State, Shown]:
        state, observation = inner.reset(key)
        return state, show(observation)

    def step(state: State, action: Array) -> tuple[State, TimeStep]:
        state, timestep = inner.step(state, action)
        loose: dict[str, Any] = {
            "reward": timestep.reward[None],
            "terminated": timestep.terminated.astype(float),
            "truncated": timestep.truncated.astype(float),
            "metrics": {**timestep.metrics, "steps": 1},
        }
        return state, timestep._replace(
            observation=show(timestep.observation),
            next_observation=show(timestep.next_observation),
            **loose,
        )

    return inner._replace(
        name=f"containers({inner.name})",
        reset=reset,
        step=step,
        observation=jax.eval_shape(show, inner.observation),
        critic_part="privileged",
    )
