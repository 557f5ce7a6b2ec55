"""How fast an update could be on this machine: its matrix products, at the rate that products are made here."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Var

import reppo_fx as rx


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Seconds until a result is there, and the result."""
    before = time.perf_counter()
    result = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - before, result


def floor(train: Any, hyperparameters: Any) -> dict[str, float]:
    """Matrix products of one update, and the rate of this machine at products of their usual size."""
    config = train.config

    def learn(key: Any) -> Any:
        state = train.init(key, hyperparameters)
        _, rollout = rx.collect(train, train.training_env, state)
        return rx.make_batch(train, state, rollout), state

    batch, state = jax.eval_shape(learn, jax.random.key(0))
    key = jax.random.key(0)
    # Nothing of the world is needed for an update.
    state = state._replace(rollout=(), key=key)
    zero = lambda x: x if x is key else jnp.zeros(x.shape, x.dtype)
    state, batch = jax.tree.map(zero, (state, batch))
    run = lambda state, batch: rx.update(train, state, batch)
    flops = matrix_flops(jax.make_jaxpr(run)(state, batch).jaxpr)
    program = jax.jit(run)
    jax.block_until_ready(program(state, batch))
    seconds_update = statistics.median(timed(program, state, batch)[0] for _ in range(3))
    rate = matrix_rate(config.steps_per_iteration // config.num_minibatches, config.critic_width)
    return {
        "update_flops": flops,
        "matrix_flops_per_second": rate,
        "floor_seconds": flops / rate,
        "update_seconds": seconds_update,
    }


def matrix_flops(jaxpr: Any) -> float:
    """Floating-point operations of the matrix products that a program needs; loops count as often as they run."""
    total = 0.0
    needed = {variable for variable in jaxpr.outvars if isinstance(variable, Var)}
    for equation in reversed(jaxpr.eqns):
        # The compiler drops what nobody reads: self-prediction where only the value is asked for.
        if needed.isdisjoint(equation.outvars):
            continue
        needed.update(variable for variable in equation.invars if isinstance(variable, Var))
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += product_flops(equation) + times * sum(map(matrix_flops, inner_programs(equation)))
    return total


def product_flops(equation: Any) -> float:
    """Two operations for every entry of the result and every entry that is summed over."""
    if equation.primitive.name != "dot_general":
        return 0.0
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2.0 * math.prod(out) * math.prod(left[i] for i in contracted)


def inner_programs(equation: Any) -> list[Any]:
    """Bodies of loops and of called functions."""
    inner = [
        getattr(value, "jaxpr", value) for value in jax.tree.leaves(tuple(equation.params.values()))
    ]
    return [value for value in inner if hasattr(value, "eqns")]


def matrix_rate(rows: int, width: int) -> float:
    """Floating-point operations per second of `[rows, width] @ [width, width]`; the best of five."""
    a = jnp.ones((rows, width))
    b = jnp.ones((width, width)) / width

    @jax.jit
    def products(a: Any, b: Any) -> Any:
        return jax.lax.fori_loop(0, 50, lambda _, x: x @ b, a)

    jax.block_until_ready(products(a, b))
    seconds = min(timed(products, a, b)[0] for _ in range(5))
    return 50 * 2.0 * rows * width * width / seconds
