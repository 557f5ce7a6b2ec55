import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from reppo_fx import ops

# Compiled for speed; the conformance table checks that eager calls agree.
self_prediction_loss = jax.jit(ops.self_prediction_loss)
squared_value_loss = jax.jit(ops.squared_value_loss)


def prediction_batch(seed=0, rows=4, features=3):
    rng = np.random.default_rng(seed)
    return {
        "predicted_embeddings": rng.normal(size=(rows, features)).astype(np.float32),
        "next_embeddings": rng.normal(size=(rows, features)).astype(np.float32),
        "predicted_rewards": rng.normal(size=rows).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminated": np.array([False, True, False, False][:rows]),
    }


def total_prediction_loss(batch):
    return self_prediction_loss(**batch).sum()


def test_squared_loss_by_hand():
    loss = squared_value_loss(jnp.array([1.0, -2.0]), jnp.array([3.0, -2.0]))
    np.testing.assert_array_equal(loss, [4.0, 0.0])


def test_squared_loss_gradient_is_twice_the_error_and_none_reaches_the_target():
    values, targets = jnp.array([1.0, -2.0]), jnp.array([3.0, 5.0])
    into_values, into_targets = jax.grad(
        lambda v, g: squared_value_loss(v, g).sum(), argnums=(0, 1)
    )(values, targets)
    np.testing.assert_array_equal(into_values, [-4.0, -14.0])
    np.testing.assert_array_equal(into_targets, [0.0, 0.0])


def test_squared_loss_names_targets_of_another_shape(unchecked_annotations):
    with pytest.raises(ValueError, match=r"values is \[3\] but targets is \[3, 1\]"):
        squared_value_loss(jnp.ones(3), jnp.ones((3, 1)))


def test_self_prediction_by_hand():
    loss = self_prediction_loss(
        predicted_embeddings=jnp.array([[1.0, 2.0, 3.0]]),
        next_embeddings=jnp.array([[0.0, 0.0, 0.0]]),
        predicted_rewards=jnp.array([3.0]),
        rewards=jnp.array([1.0]),
        terminated=jnp.array([False]),
    )
    # (1 + 4 + 9 + (3 − 1)²) / 4
    np.testing.assert_array_equal(loss, [4.5])


def test_self_prediction_is_the_mean_over_features_with_the_reward_as_one_more():
    batch = prediction_batch() | {"terminated": np.zeros(4, bool)}
    predicted = np.column_stack([batch["predicted_embeddings"], batch["predicted_rewards"]])
    wanted = np.column_stack([batch["next_embeddings"], batch["rewards"]])
    expected = np.mean(np.square(predicted - wanted), axis=-1)
    # One float32 mean of four squares.
    np.testing.assert_allclose(self_prediction_loss(**batch), expected, rtol=1e-6)


def test_a_terminated_row_gives_no_loss_and_no_gradient_even_with_nan_successor():
    batch = prediction_batch()
    bad = batch | {
        "next_embeddings": np.where(batch["terminated"][:, None], np.nan, batch["next_embeddings"]),
        "rewards": np.where(batch["terminated"], np.nan, batch["rewards"]),
    }
    np.testing.assert_array_equal(self_prediction_loss(**bad), self_prediction_loss(**batch))
    assert self_prediction_loss(**batch)[1] == 0.0

    gradient = jax.grad(lambda z: self_prediction_loss(**bad | {"predicted_embeddings": z}).sum())(
        batch["predicted_embeddings"]
    )
    np.testing.assert_array_equal(gradient[1], np.zeros(3))
    assert np.all(np.delete(gradient, 1, axis=0) != 0.0)


@pytest.mark.parametrize("constant", ["next_embeddings", "rewards"])
def test_no_gradient_reaches_what_is_predicted(constant):
    batch = prediction_batch()
    gradient = jax.grad(lambda x: total_prediction_loss(batch | {constant: x}))(batch[constant])
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_self_prediction_gradients():
    batch = prediction_batch()

    def loss(embeddings, rewards):
        given = {"predicted_embeddings": embeddings, "predicted_rewards": rewards}
        return self_prediction_loss(**batch | given)

    with jax.enable_x64(True):
        inputs = (batch["predicted_embeddings"], batch["predicted_rewards"])
        check_grads(jax.jit(loss), [jnp.float64(x) for x in inputs], order=1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (
            "next_embeddings",
            (4, 2),
            r"predicted_embeddings is \[4, 3\] but next_embeddings is \[4, 2\]",
        ),
        ("rewards", (3,), r"predicted_rewards is \[4\] but rewards is \[3\]"),
        ("terminated", (4, 1), r"predicted_rewards is \[4\] but terminated is \[4, 1\]"),
    ],
)
def test_self_prediction_names_the_array_of_another_shape(
    unchecked_annotations, name, shape, message
):
    batch = prediction_batch()
    with pytest.raises(ValueError, match=message):
        self_prediction_loss(**batch | {name: np.zeros(shape, batch[name].dtype)})
