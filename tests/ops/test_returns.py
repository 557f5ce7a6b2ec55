import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import rlax
from jax.test_util import check_grads

from reppo_fx import ops

# Compiled for speed; the conformance table checks that eager calls agree.
entropy_regularized_rewards = jax.jit(ops.entropy_regularized_rewards)
generalized_advantages = jax.jit(ops.generalized_advantages)
lambda_returns = jax.jit(ops.lambda_returns)

GAMMA, LAMBDA = 0.9, 0.8
# Ten float32 operations a row on numbers of order one.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def trajectory(length=12, batch=(), ends=0.3, seed=0):
    """Random rows; about a third terminate, a third are truncated, some both."""
    rng = np.random.default_rng(seed)
    shape = (length, *batch)
    return {
        "rewards": rng.normal(size=shape).astype(np.float32),
        "next_values": rng.normal(size=shape).astype(np.float32),
        "terminated": rng.uniform(size=shape) < ends,
        "truncated": rng.uniform(size=shape) < ends,
    }


def flags(*ones, length):
    return np.isin(np.arange(length), ones)


def with_row(array, row, value):
    changed = array.copy()
    changed[row] = value
    return changed


def returns_by_definition(rewards, next_values, terminated, truncated, gamma, lam, weights=None):
    """The recursion of the docstring, one row and one float64 operation at a time."""
    rewards, next_values = np.float64(rewards), np.float64(next_values)
    last = len(rewards) - 1
    returns = np.zeros(len(rewards))
    for t in range(last, -1, -1):
        if terminated[t]:
            returns[t] = rewards[t]
        elif truncated[t] or t == last:
            returns[t] = rewards[t] + gamma * next_values[t]
        else:
            lam_t = lam if weights is None else lam * float(weights[t + 1])
            mixed = (1 - lam_t) * next_values[t] + lam_t * returns[t + 1]
            returns[t] = rewards[t] + gamma * mixed
    return returns


def test_three_rows_by_hand():
    returns = lambda_returns(
        jnp.array([1.0, 2.0, 3.0]),
        jnp.array([10.0, 20.0, 30.0]),
        flags(length=3),
        flags(length=3),
        discount=0.5,
        trace_decay=0.5,
    )
    # 3 + 30/2 = 18; 2 + (20 + 18)/4 = 11.5; 1 + (10 + 11.5)/4 = 6.375
    np.testing.assert_array_equal(returns, [6.375, 11.5, 18.0])


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_definition_with_every_kind_of_end(seed):
    rows = trajectory(seed=seed)
    expected = returns_by_definition(**rows, gamma=GAMMA, lam=LAMBDA)
    np.testing.assert_allclose(
        lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA), expected, **CLOSE
    )


def test_lambda_zero_is_one_step():
    rows = trajectory()
    one_step = rows["rewards"] + GAMMA * np.where(rows["terminated"], 0.0, rows["next_values"])
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=0.0)
    np.testing.assert_allclose(returns, one_step, **CLOSE)


def test_lambda_one_is_monte_carlo_with_one_bootstrap_at_the_end():
    rows = trajectory(length=6, ends=0.0)
    powers = GAMMA ** np.arange(6)
    expected = [
        np.sum(powers[: 6 - t] * rows["rewards"][t:]) + GAMMA ** (6 - t) * rows["next_values"][-1]
        for t in range(6)
    ]
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=1.0)
    np.testing.assert_allclose(returns, expected, **CLOSE)


def test_truncation_cuts_the_trace_and_bootstraps_from_its_own_row():
    rows = trajectory(length=4, ends=0.0) | {"truncated": flags(1, length=4)}
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    own_row = rows["rewards"][1] + GAMMA * rows["next_values"][1]
    np.testing.assert_allclose(returns[1], own_row, **CLOSE)

    later = rows | {"rewards": rows["rewards"] + np.float32([0, 0, 100, 100])}
    changed = lambda_returns(**later, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_array_equal(changed[:2], returns[:2])
    assert np.all(changed[2:] > returns[2:] + 90.0)


def test_termination_has_no_bootstrap_and_cuts_the_trace():
    rows = trajectory(length=4, ends=0.0) | {"terminated": flags(1, length=4)}
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    assert returns[1] == rows["rewards"][1]

    values = with_row(rows["next_values"], 1, np.nan)
    masked = lambda_returns(**rows | {"next_values": values}, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_array_equal(masked, returns)


def test_terminated_wins_where_a_step_is_both():
    rows = trajectory(length=3, ends=0.0)
    both = rows | {"terminated": flags(1, length=3), "truncated": flags(1, length=3)}
    returns = lambda_returns(**both, discount=GAMMA, trace_decay=LAMBDA)
    assert returns[1] == rows["rewards"][1]


def test_last_row_bootstraps_fully_unless_it_terminated():
    rows = trajectory(length=3, ends=0.0)
    bootstrapped = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    expected = rows["rewards"][-1] + GAMMA * rows["next_values"][-1]
    np.testing.assert_allclose(bootstrapped[-1], expected, **CLOSE)

    ended = lambda_returns(
        **rows | {"terminated": flags(2, length=3)}, discount=GAMMA, trace_decay=LAMBDA
    )
    assert ended[-1] == rows["rewards"][-1]


@pytest.mark.parametrize("seed", range(3))
def test_trace_weights_scale_the_trust_in_the_next_row(seed):
    rows = trajectory(seed=seed)
    weights = np.random.default_rng(seed).uniform(size=12).astype(np.float32)
    expected = returns_by_definition(**rows, gamma=GAMMA, lam=LAMBDA, weights=weights)
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA, trace_weights=weights)
    np.testing.assert_allclose(returns, expected, **CLOSE)


def test_a_zero_trace_weight_at_t_makes_row_t_minus_one_one_step():
    rows = trajectory(length=4, ends=0.0)
    weights = with_row(np.ones(4, np.float32), 2, 0.0)
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA, trace_weights=weights)
    plain = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_allclose(
        returns[1], rows["rewards"][1] + GAMMA * rows["next_values"][1], **CLOSE
    )
    np.testing.assert_allclose(returns[2:], plain[2:], **CLOSE)


def test_the_first_trace_weight_is_not_used():
    rows = trajectory(length=4, ends=0.0)
    weights = with_row(np.ones(4, np.float32), 0, 0.0)
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA, trace_weights=weights)
    plain = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_allclose(returns, plain, **CLOSE)


def test_equals_rlax_where_ends_are_written_as_its_discounts_and_lambdas():
    rows = trajectory()
    discounts = np.float32(GAMMA * (1.0 - rows["terminated"]))
    decays = np.float32(LAMBDA * (1.0 - rows["truncated"]))
    expected = rlax.lambda_returns(rows["rewards"], discounts, rows["next_values"], decays)
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_allclose(returns, expected, **CLOSE)


def test_gradients_of_lambda_returns():
    rows = trajectory(length=5)
    ends = {"terminated": rows["terminated"], "truncated": rows["truncated"]}

    def returns(rewards, next_values, discount, trace_decay):
        return lambda_returns(
            rewards, next_values, **ends, discount=discount, trace_decay=trace_decay
        )

    with jax.enable_x64(True):
        inputs = rows["rewards"], rows["next_values"], GAMMA, LAMBDA
        check_grads(jax.jit(returns), [jnp.float64(x) for x in inputs], order=1, rtol=1e-5)


def test_advantages_by_hand():
    advantages = generalized_advantages(
        rewards=jnp.array([1.0, 2.0]),
        values=jnp.array([4.0, 10.0]),
        next_values=jnp.array([10.0, 20.0]),
        terminated=flags(length=2),
        truncated=flags(length=2),
        discount=0.5,
        trace_decay=0.5,
    )
    # δ = [1 + 5 − 4, 2 + 10 − 10] = [2, 2]; A = [2 + 0.25 · 2, 2]
    np.testing.assert_array_equal(advantages, [2.5, 2.0])


def test_advantages_are_lambda_returns_minus_values():
    rows, values = trajectory(), trajectory(seed=1)["rewards"]
    advantages = generalized_advantages(values=values, **rows, discount=GAMMA, trace_decay=LAMBDA)
    returns = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_allclose(advantages, returns - values, **CLOSE)


def test_advantages_obey_their_own_recursion_where_successors_are_the_next_rows():
    rows, values = trajectory(), trajectory(seed=1)["rewards"]
    goes_on = ~(rows["terminated"] | rows["truncated"])[:-1]
    successors = np.where(goes_on, values[1:], rows["next_values"][:-1])
    rows["next_values"] = np.append(successors, rows["next_values"][-1:])
    advantages = generalized_advantages(values=values, **rows, discount=GAMMA, trace_decay=LAMBDA)
    alive = 1.0 - rows["terminated"]
    deltas = rows["rewards"] + GAMMA * alive * rows["next_values"] - values
    carried = GAMMA * LAMBDA * alive * (1.0 - rows["truncated"])
    following = np.append(advantages[1:], 0.0)
    np.testing.assert_allclose(advantages, deltas + carried * following, **CLOSE)


def test_advantages_equal_rlax_without_truncation():
    rows = trajectory() | {"truncated": flags(length=12)}
    values = np.append(trajectory(seed=1)["rewards"][:1], rows["next_values"])
    discounts = np.float32(GAMMA * (1.0 - rows["terminated"]))
    expected = rlax.truncated_generalized_advantage_estimation(
        rows["rewards"], discounts, LAMBDA, values
    )
    advantages = generalized_advantages(
        values=values[:-1], **rows, discount=GAMMA, trace_decay=LAMBDA
    )
    np.testing.assert_allclose(advantages, expected, **CLOSE)


def test_entropy_bonus_by_hand():
    rewards = entropy_regularized_rewards(
        rewards=jnp.array([1.0, 1.0, 1.0]),
        next_log_probs=jnp.array([-2.0, 2.0, -2.0]),
        terminated=jnp.array([False, False, True]),
        temperature=0.5,
        discount=0.5,
    )
    np.testing.assert_array_equal(rewards, [1.5, 0.5, 1.0])


def test_no_entropy_bonus_reaches_a_terminated_row_even_from_nan():
    rewards = entropy_regularized_rewards(
        jnp.ones(1), jnp.full(1, jnp.nan), jnp.ones(1, bool), temperature=0.5, discount=0.5
    )
    np.testing.assert_array_equal(rewards, [1.0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("next_values", r"rewards is \[12, 2\] but next_values is \[12\]"),
        ("terminated", r"rewards is \[12, 2\] but terminated is \[12\]"),
        ("truncated", r"rewards is \[12, 2\] but truncated is \[12\]"),
    ],
)
def test_returns_name_the_array_of_another_shape(unchecked_annotations, name, message):
    rows = trajectory(batch=(2,))
    with pytest.raises(ValueError, match=message):
        lambda_returns(**rows | {name: rows[name][:, 0]}, discount=GAMMA, trace_decay=LAMBDA)


def test_returns_name_trace_weights_of_another_shape(unchecked_annotations):
    with pytest.raises(ValueError, match=r"rewards is \[12\] but trace_weights is \[11\]"):
        lambda_returns(
            **trajectory(), discount=GAMMA, trace_decay=LAMBDA, trace_weights=jnp.ones(11)
        )


def test_advantages_name_values_of_another_shape(unchecked_annotations):
    with pytest.raises(ValueError, match=r"rewards is \[12\] but values is \[13\]"):
        generalized_advantages(
            values=jnp.ones(13), **trajectory(), discount=GAMMA, trace_decay=LAMBDA
        )


def test_entropy_bonus_names_the_array_of_another_shape(unchecked_annotations):
    with pytest.raises(ValueError, match=r"rewards is \[3\] but next_log_probs is \[2\]"):
        entropy_regularized_rewards(jnp.ones(3), jnp.ones(2), flags(length=3), 0.1, 0.9)


def test_integer_rewards_are_refused_rather_than_discounted_by_zero(unchecked_annotations):
    rows = trajectory(length=3) | {"rewards": np.ones(3, np.int32)}
    with pytest.raises(ValueError, match="dtype int32"):
        lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)


def test_annotations_are_enforced_in_these_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        lambda_returns(jnp.ones(3), jnp.ones(2), flags(length=3), flags(length=3), 0.9, 0.9)


BAD = [np.nan, np.inf, -np.inf]


def finite_gradients(function, *inputs):
    gradients = jax.jit(jax.grad(lambda *x: function(*x).sum(), tuple(range(len(inputs)))))(*inputs)
    return all(np.all(np.isfinite(x)) for x in gradients)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("end", ["truncated", "terminated"])
@pytest.mark.parametrize("row", range(4))
def test_nothing_after_an_end_reaches_back_not_even_nan(end, row, bad):
    rows = trajectory(length=5, ends=0.0) | {end: flags(row, length=5)}
    clean = lambda_returns(**rows, discount=GAMMA, trace_decay=LAMBDA)
    after = np.arange(5) > row
    rewards = np.where(after, np.float32(bad), rows["rewards"])
    values = np.where(after, np.float32(bad), rows["next_values"])
    bad_rows = rows | {"rewards": rewards, "next_values": values}
    returns = lambda_returns(**bad_rows, discount=GAMMA, trace_decay=LAMBDA)
    np.testing.assert_array_equal(returns[: row + 1], clean[: row + 1])

    def before(rewards, values):
        given = bad_rows | {"rewards": rewards, "next_values": values}
        return lambda_returns(**given, discount=GAMMA, trace_decay=LAMBDA)[: row + 1]

    assert finite_gradients(before, rewards, values)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("row", range(1, 5))
def test_a_trace_weight_of_zero_cuts_whatever_comes_at_any_time(row, bad):
    rows = trajectory(length=5, ends=0.0)
    weights = with_row(np.full(5, 0.7, np.float32), row, 0.0)
    bad_rows = rows | {"rewards": with_row(rows["rewards"], row, bad)}

    def before(rewards, values, discount, trace_decay, weights):
        given = bad_rows | {"rewards": rewards, "next_values": values}
        returns = lambda_returns(
            **given, discount=discount, trace_decay=trace_decay, trace_weights=weights
        )
        return returns[:row]

    given = (GAMMA, LAMBDA, weights)
    cut = before(bad_rows["rewards"], rows["next_values"], *given)
    np.testing.assert_array_equal(cut, before(rows["rewards"], rows["next_values"], *given))
    assert finite_gradients(before, bad_rows["rewards"], rows["next_values"], *given)


@pytest.mark.parametrize("bad", BAD)
def test_a_lambda_or_discount_of_zero_cuts_and_a_lambda_of_one_needs_no_value(bad):
    rows = trajectory(length=4, ends=0.0)
    bad_reward = rows | {"rewards": with_row(rows["rewards"], 2, bad)}
    one_step = lambda_returns(**bad_reward, discount=GAMMA, trace_decay=0.0)
    assert np.all(np.isfinite(np.delete(one_step, 2)))
    alone = lambda_returns(**bad_reward, discount=0.0, trace_decay=LAMBDA)
    np.testing.assert_array_equal(np.delete(alone, 2), np.delete(rows["rewards"], 2))

    bad_value = rows | {"next_values": with_row(rows["next_values"], 1, bad)}
    monte_carlo = lambda_returns(**bad_value, discount=GAMMA, trace_decay=1.0)
    expected = lambda_returns(**rows, discount=GAMMA, trace_decay=1.0)
    np.testing.assert_array_equal(monte_carlo, expected)


@pytest.mark.parametrize("bad", BAD)
def test_advantages_are_cut_as_returns_are(bad):
    rows = trajectory(length=5, ends=0.0) | {"truncated": flags(1, length=5)}
    values = trajectory(length=5, seed=1)["rewards"]
    path = {"discount": GAMMA, "trace_decay": LAMBDA}
    clean = generalized_advantages(values=values, **rows, **path)
    after = np.arange(5) > 1
    spoilt = {
        name: np.where(after, np.float32(bad), rows[name]) for name in ("rewards", "next_values")
    }
    advantages = generalized_advantages(
        values=np.where(after, np.float32(bad), values), **rows | spoilt, **path
    )
    np.testing.assert_array_equal(advantages[:2], clean[:2])


@pytest.mark.parametrize("bad", BAD)
def test_no_gradient_of_the_entropy_bonus_comes_from_a_terminated_row(bad):
    def total(log_probs, temperature, discount):
        ended = jnp.array([True, False])
        return entropy_regularized_rewards(jnp.ones(2), log_probs, ended, temperature, discount)

    assert finite_gradients(total, jnp.array([bad, -1.0]), 0.5, 0.9)
    without = entropy_regularized_rewards(
        jnp.ones(1), jnp.full(1, bad), jnp.zeros(1, bool), temperature=0.0, discount=0.9
    )
    np.testing.assert_array_equal(without, [1.0])
