"""Gradient estimators: a Gaussian climbing down the six-hump camel function, as in the first figure of the paper.

python benchmarks/estimators.py       # writes results/estimators.json and estimators.png

Score function with a leave-one-out baseline; pathwise through the true function; pathwise through a network that
was fitted well or badly to samples of it. Same policy, samples per step, optimizer and starts for all. Measured:
variance and bias of the gradient at the starts, and the distance from the nearest global minimum at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import record

import reppo_fx as rx
from reppo_fx.learner.networks import MLP

MINIMA = jnp.array([[0.0898, -0.7126], [-0.0898, 0.7126]])
DOMAIN = jnp.array([2.0, 1.0])
STD, SAMPLES, STEPS, LEARNING_RATE = 0.1, 16, 300, 0.02
STARTS, REPEATS = 64, 2048
FITS = {"strong": (4096, 4000), "weak": (24, 300)}  # points, gradient steps


def camel(point: Any) -> Any:
    """`(4 − 2.1x² + x⁴/3) x² + xy + (−4 + 4y²) y²`, to be minimized; two global minima at −1.0316."""
    x, y = point[..., 0], point[..., 1]
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (-4 + 4 * y**2) * y**2


def surrogate(key: Any, points: int, steps: int) -> Callable[[Any], Any]:
    """A network fitted to `camel` at random points of the domain."""
    network_key, point_key = jax.random.split(key)
    network = MLP(network_key, 2, 1, 64, 3, "none")
    inputs = jax.random.uniform(point_key, (points, 2), minval=-1.2, maxval=1.2) * DOMAIN
    optimizer = optax.adam(3e-3)
    predict = lambda network, point: network(point / DOMAIN)[..., 0]
    loss = lambda network: jnp.mean(jnp.square(predict(network, inputs) - camel(inputs)))

    def step(carry: Any, _: None) -> Any:
        network, state = carry
        updates, state = optimizer.update(jax.grad(loss)(network), state)
        return (optax.apply_updates(network, updates), state), None

    fitted, _ = jax.lax.scan(step, (network, optimizer.init(network)), length=steps)[0]
    return lambda point: predict(fitted, point)


def pathwise(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Gradient in the mean, through samples and function."""

    def loss(mean: Any, key: Any) -> Any:
        samples = mean + STD * jax.random.normal(key, (SAMPLES, 2))
        nothing = jnp.zeros(SAMPLES)
        values = -function(samples)
        return rx.pathwise_actor_loss(
            values, nothing, nothing, 0.0, 0.0, 1.0, kl_constraint="none"
        ).mean()

    return jax.grad(loss)


def score_function(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Gradient in the mean, through the density of samples; the baseline is the mean of the others."""

    def loss(mean: Any, key: Any) -> Any:
        noise = STD * jax.random.normal(key, (SAMPLES, 2))
        samples = jax.lax.stop_gradient(mean + noise)
        log_probs = -0.5 * jnp.square((samples - mean) / STD).sum(-1)
        values = -function(samples)
        advantages = (values - values.mean()) * SAMPLES / (SAMPLES - 1)
        nothing = jnp.zeros(SAMPLES)
        return rx.score_function_actor_loss(
            log_probs, advantages, nothing, 0.0, 0.0, 1.0, kl_constraint="none"
        ).mean()

    return jax.grad(loss)


def descend(gradient: Callable[[Any, Any], Any], start: Any, key: Any) -> Any:
    """The mean after every step, `[STEPS + 1, 2]`."""
    optimizer = optax.adam(LEARNING_RATE)

    def step(carry: Any, key: Any) -> Any:
        mean, state = carry
        updates, state = optimizer.update(gradient(mean, key), state)
        mean = optax.apply_updates(mean, updates)
        return (mean, state), mean

    _, path = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.split(key, STEPS))
    return jnp.concatenate([start[None], path])


def draw(paths: dict[str, np.ndarray], path: Any) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    x, y = np.meshgrid(np.linspace(-2, 2, 200), np.linspace(-1.1, 1.1, 150))
    height = np.asarray(camel(jnp.stack([x, y], -1)))
    figure, panels = plt.subplots(
        1, len(paths), figsize=(4.2 * len(paths), 3.4), layout="constrained"
    )
    for axes, (name, lines) in zip(panels, paths.items(), strict=True):
        axes.contourf(x, y, np.log1p(height - height.min()), levels=25, cmap="Greys")
        for line in lines[:12]:
            axes.plot(*line.T, linewidth=1)
            axes.plot(*line[-1], marker="o", markersize=4, color="tab:red")
        axes.plot(*np.asarray(MINIMA).T, "*", color="gold", markersize=11, markeredgecolor="black")
        axes.set_title(name)
        axes.set_xlim(-2, 2)
        axes.set_ylim(-1.1, 1.1)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    key = jax.random.key(0)
    starts = jax.random.uniform(key, (STARTS, 2), minval=-1.0, maxval=1.0) * DOMAIN
    estimators = {
        "score function": score_function(camel),
        "pathwise, true function": pathwise(camel),
        **{
            f"pathwise, {name} surrogate": pathwise(surrogate(jax.random.key(1), *fit))
            for name, fit in FITS.items()
        },
    }
    truth = jax.grad(lambda mean: expected(mean))
    rows, paths = [], {}
    for name, gradient in estimators.items():
        keys = jax.random.split(jax.random.key(2), (STARTS, REPEATS))
        many = jax.vmap(jax.vmap(gradient, (None, 0)))
        samples = jax.jit(many)(starts, keys)
        exact = jax.vmap(truth)(starts)
        lines = jax.jit(jax.vmap(lambda s, k, g=gradient: descend(g, s, k)))(starts, keys[:, 0])
        distance = jnp.linalg.norm(lines[:, -1, None] - MINIMA, axis=-1).min(-1)
        variance = samples.var(1).sum(-1)
        # The mean of so many samples is itself noisy; without that its square would be too large.
        squared_bias = jnp.square(samples.mean(1) - exact).sum(-1) - variance / REPEATS
        rows.append(
            {
                "estimator": name,
                "variance": float(variance.mean()),
                "bias": float(jnp.sqrt(jnp.maximum(squared_bias.mean(), 0.0))),
                "distance": np.quantile(distance, [0.25, 0.5, 0.75]).tolist(),
                "reached": float((distance < 0.1).mean()),
            }
        )
        paths[name] = np.asarray(lines)
        print(rows[-1])
    settings = {"std": STD, "samples": SAMPLES, "steps": STEPS, "learning_rate": LEARNING_RATE}
    result = {**record.stamp(), **settings, "starts": STARTS, "repeats": REPEATS, "rows": rows}
    record.write(result, record.RESULTS / "estimators.json")
    draw(paths, record.RESULTS / "estimators.png")


def expected(mean: Any) -> Any:
    """`E camel(mean + STD ε)`, exact: Gauss-Hermite quadrature integrates this polynomial without error."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    x, y = jnp.meshgrid(nodes, nodes)
    both = jnp.outer(weights, weights) / (2 * jnp.pi)
    return (camel(mean + STD * jnp.stack([x, y], -1)) * both).sum()


if __name__ == "__main__":
    main()
