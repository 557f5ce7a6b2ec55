"""What Playground and Brax share: a task object whose `State` has `obs`, `reward` and a float `done`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._errors import require_extra
from .base import Environment, TimeStep, seconds_of


@runtime_checkable
class SimulatorState(Protocol):
    """What a task gives; Python numbers may stand where arrays are meant."""

    @property
    def obs(self) -> PyTree[Array]: ...

    @property
    def reward(self) -> Any: ...

    @property
    def done(self) -> Any: ...


@runtime_checkable
class Task(Protocol):
    """A simulator's task object, e.g. Playground's `MjxEnv` or Brax's `Env`."""

    @property
    def action_size(self) -> int: ...

    def reset(self, rng: Array) -> SimulatorState: ...

    def step(self, state: Any, action: Array) -> SimulatorState: ...


class Parts(NamedTuple):
    """Which part of a dict observation actor and critic see; none: the usual one."""

    actor: str | None
    critic: str | None


# Wrappers of training loops: they cut episodes, start them anew or add a batch axis, and what they hide
# (the true successor, whether an end was a time limit) cannot be had back.
_TRAINING_WRAPPERS = ("AutoResetWrapper", "EpisodeWrapper", "EvalWrapper", "VmapWrapper")


def require(module: str, what: str, extra: str) -> ModuleType:
    """Import an optional dependency; one that is installed but broken shows its own error.

    Args:
        module: the name to import, perhaps with dots.
        what: what people call it, for the sentence.
        extra: of this package, which brings it.

    Returns:
        The module.

    Raises:
        ImportError: if it is not installed, with the extra that brings it.

    >>> require("json.decoder", "JSON", "cli").__name__
    'json.decoder'
    >>> require("nowhere", "Nowhere", "cli")
    Traceback (most recent call last):
        ...
    reppo_fx._errors.MissingExtraError: Nowhere is not installed; install it with: pip install 'reppo_fx[cli]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name in (module, module.partition(".")[0]):
            raise require_extra(what, extra) from error
        raise


def adapt(
    task: Task,
    name: str,
    parts: Parts,
    episode_length: int | None = None,
    rendered: int | None = None,
) -> Environment:
    """The contract from a simulator's task object, after a dry run of `reset` and `step`.

    Args:
        task: the simulator's object.
        name: what people call it.
        parts: which parts of a dict observation are used.
        episode_length: the task's time limit in steps.
        rendered: how many instances a task with pixels renders together; none for one without.

    Returns:
        The environment.

    Raises:
        ValueError: for what the contract cannot hold, or where the simulator itself is broken.
    """
    _check_bare(task, name)
    types = _state_types(task, name, rendered)
    if types.reward.size != 1 or types.done.size != 1:
        raise ValueError(
            f"{name} gives a reward of shape {types.reward.shape} and a done of shape "
            f"{types.done.shape}; both must be one number, for one instance."
        )
    actor_part, critic_part = _choose_parts(name, types.obs, parts)

    def reset(key: Array) -> tuple[Any, PyTree[Array]]:
        with upstream_faults(name, rendered):
            state = jax.tree.map(_fit, task.reset(key), types)
        return state, state.obs

    def step(state: Any, action: Array) -> tuple[Any, TimeStep]:
        with upstream_faults(name, rendered):
            new = jax.tree.map(_fit, task.step(_copy(state), action), types)
        return new, _timestep(new)

    return Environment(
        name=name,
        reset=reset,
        step=step,
        observation=types.obs,
        action_size=int(task.action_size),
        episode_length=episode_length,
        actor_part=actor_part,
        critic_part=critic_part,
        action_seconds=seconds_of(task, "dt"),
    )


def _timestep(state: Any) -> TimeStep:
    ended = _flag(state.done)
    return TimeStep(
        observation=state.obs,
        next_observation=state.obs,
        reward=_number(state.reward),
        terminated=ended,
        truncated=jnp.zeros_like(ended),
        metrics=_metrics(getattr(state, "metrics", None)),
    )


def _metrics(metrics: Mapping[str, Array] | None) -> dict[str, Float[Array, ""]]:
    """Every number among a task's metrics, under its own name."""
    return {
        name: _number(value)
        for name, value in (metrics or {}).items()
        if isinstance(value, jax.Array) and value.size == 1 and not _is_extended(value.dtype)
    }


def _number(x: Array) -> Float[Array, ""]:
    return x.reshape(()).astype(jnp.result_type(float))


def _flag(done: Array) -> Bool[Array, ""]:
    done = done.reshape(())
    return done > 0.5 if jnp.issubdtype(done.dtype, jnp.floating) else done.astype(bool)


def _state_types(task: Task, name: str, rendered: int | None) -> Any:
    """Shape and dtype of every leaf of a state: what `reset` gives, and what `step` needs room for.

    Under `vmap`, as it will run: what a renderer gives there is one instance's share of a batch.
    """
    seen = []

    def dry_run(key: Array) -> None:
        state = jax.tree.map(jnp.asarray, task.reset(key))
        seen.append(_types_of(state))
        new = task.step(_copy(state), jnp.zeros((int(task.action_size),)))
        seen.append(_types_of(jax.tree.map(jnp.asarray, new)))

    with upstream_faults(name, rendered):
        jax.eval_shape(
            lambda key: jax.vmap(dry_run)(jax.random.split(key, rendered or 1)), jax.random.key(0)
        )
    before, after = map(_leaves_by_path, seen)
    if before.keys() != after.keys():
        raise ValueError(
            f"{name} changes its state: {_list(before.keys() - after.keys())} only after reset, "
            f"{_list(after.keys() - before.keys())} only after step; every step must give what reset gives."
        )
    for path, leaf in before.items():
        if leaf.shape != after[path].shape and not leaf.size == after[path].size == 1:
            raise ValueError(
                f"{name} changes its state: state{path} has shape {leaf.shape} after reset and "
                f"{after[path].shape} after step."
            )
    types = [_type(leaf, after[path]) for path, leaf in before.items()]
    return jax.tree.unflatten(jax.tree.structure(seen[0]), types)


def _types_of(tree: PyTree[Array]) -> PyTree[jax.ShapeDtypeStruct]:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _copy(state: Any) -> Any:
    """The same leaves in containers of their own: tasks write into `metrics` and `info`."""
    return jax.tree.map(lambda x: x, state)


def _type(first: jax.ShapeDtypeStruct, second: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The type of reset, unless it cannot hold what a step gives (an integer 0 that becomes 0.5)."""
    dtype = first.dtype
    if dtype != second.dtype and not _is_extended(dtype):
        wider = jnp.promote_types(dtype, second.dtype)
        same_kind = jnp.issubdtype(dtype, jnp.floating) or (
            jnp.issubdtype(dtype, jnp.integer) and not jnp.issubdtype(wider, jnp.floating)
        )
        dtype = dtype if same_kind else wider
    return jax.ShapeDtypeStruct(first.shape, dtype)


def _fit(x: Any, like: jax.ShapeDtypeStruct) -> Array:
    """`x` as an array of that shape and dtype, never weakly typed: the carry of a scan keeps its types."""
    fitted: Array = jnp.asarray(x)
    if fitted.shape != like.shape:
        fitted = fitted.reshape(like.shape)
    if not _is_extended(like.dtype) and (fitted.dtype != like.dtype or fitted.weak_type):
        fitted = fitted.astype(like.dtype)
    return fitted


def _is_extended(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jax.dtypes.extended)


def _leaves_by_path(tree: PyTree[jax.ShapeDtypeStruct]) -> dict[str, jax.ShapeDtypeStruct]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _list(names: set[str]) -> str:
    return ", ".join(f"state{name}" for name in sorted(names)) or "nothing"


def _choose_parts(name: str, observation: PyTree, parts: Parts) -> tuple[str, str]:
    """The parts that were named, or else `"state"` (or the only part), and `"privileged_state"`."""
    if not isinstance(observation, Mapping):
        return parts.actor or "state", parts.critic or parts.actor or "state"
    known = list(observation)
    actor = parts.actor or (known[0] if len(known) == 1 else "state")
    critic = parts.critic or ("privileged_state" if "privileged_state" in known else actor)
    for role, part in (("actor", actor), ("critic", critic)):
        if part not in known:
            raise ValueError(
                f"{role}_part is {part!r}, but the observation of {name} has the parts "
                f"{', '.join(map(repr, known))}."
            )
    return actor, critic


def _check_bare(task: Task, name: str) -> None:
    layer: Any = task
    while layer is not None:
        kind = type(layer).__name__
        if kind.endswith(_TRAINING_WRAPPERS):
            raise ValueError(
                f"{name} is wrapped in {kind}, which hides the true successor of a step; "
                "give the task without the wrappers of a training loop, e.g. `task.unwrapped`."
            )
        layer = vars(layer).get("env")


@contextmanager
def upstream_faults(name: str, rendered: int | None = None) -> Iterator[None]:
    """Where a simulator cannot run on this machine, say so: it calls an older jax, or it cannot render."""
    try:
        yield
    except Exception as error:
        found = re.search(
            r"\b([a-z]\w*)\(\) got an unexpected keyword argument '(\w+)'", str(error)
        )
        if isinstance(error, TypeError) and found and callable(getattr(jnp, found[1], None)):
            raise ValueError(
                f"{name} cannot run here: {_culprit(error)} calls jax.numpy.{found[1]} with the argument "
                f"{found[2]!r}, which jax {jax.__version__} does not have. The fault is theirs: a newer "
                "release of it may work."
            ) from error
        if rendered is None or isinstance(error, ImportError):
            raise
        raise ValueError(
            f"{name} with vision=True cannot be rendered here ({type(error).__name__}: {error}). "
            "Playground renders with Warp, a whole batch at once: it needs impl='warp' and "
            f"`envs.batch(env)` with vision_config.nworld (here {rendered}) instances. What traces one "
            "instance alone, as the training loop does, cannot render."
        ) from error


def _culprit(error: BaseException) -> str:
    """The module outside jax that made the call."""
    modules = []
    traceback = error.__traceback__
    while traceback is not None:
        modules.append(traceback.tb_frame.f_globals.get("__name__", "?"))
        traceback = traceback.tb_next
    outside = [module for module in modules if module.partition(".")[0] not in ("jax", "jaxlib")]
    return outside[-1] if outside else "the simulator"
