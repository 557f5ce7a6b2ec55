import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.stats import norm

from reppo_fx import ops

# Compiled for speed; the conformance table checks that eager calls agree.
hl_gauss_support = jax.jit(ops.hl_gauss_support, static_argnums=2)
hl_gauss_targets = jax.jit(ops.hl_gauss_targets)
hl_gauss_loss = jax.jit(ops.hl_gauss_loss)
hl_gauss_value = jax.jit(ops.hl_gauss_value)


@jax.jit
def value_of_target(values, support):
    return ops.hl_gauss_value(jnp.log(ops.hl_gauss_targets(values, support)), support)


SCALES = [1e-3, 1.0, 150.0, 1e5]
BINS = 51


def values_across(support, count=41):
    """Values over the support, both ends and both sides beyond them included."""
    low, high = float(support[0]), float(support[-1])
    margin = 0.1 * (high - low)
    inside = np.linspace(low, high, count)
    return np.array([low - margin, *inside, high + margin], support.dtype)


def targets_by_scipy(values, support, sigma_ratio=0.75):
    """The definition, in float64 and in the units of the support."""
    centres = np.asarray(support, np.float64)
    width = (centres[-1] - centres[0]) / (len(centres) - 1)
    edges = centres[0] + width * (np.arange(len(centres) + 1) - 0.5)
    clipped = np.clip(np.asarray(values, np.float64), centres[0], centres[-1])[:, None]
    sigma = sigma_ratio * width
    upper = norm.sf(edges[:-1], clipped, sigma) - norm.sf(edges[1:], clipped, sigma)
    lower = norm.cdf(edges[1:], clipped, sigma) - norm.cdf(edges[:-1], clipped, sigma)
    mass = np.where(edges[:-1] > clipped, upper, lower)
    return mass / mass.sum(-1, keepdims=True)


def random_logits(rows, bins, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, bins)).astype(np.float32)


def test_support_by_hand():
    np.testing.assert_array_equal(ops.hl_gauss_support(-1.0, 3.0, 5), [-1.0, 0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize(("low", "high"), [(-0.3, 0.7), (0.1, 150.1), (-1e5, 1e5), (-7e-4, 1e-3)])
def test_support_hits_both_ends_exactly_and_is_evenly_spaced(low, high):
    support = hl_gauss_support(low, high, 151)
    assert support[0] == np.float32(low)
    assert support[-1] == np.float32(high)
    # Each centre carries a few roundings of the larger end.
    spread = np.max(np.abs(np.diff(np.float64(support)) - (high - low) / 150))
    assert spread < 4 * np.finfo(np.float32).eps * max(abs(low), abs(high))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_targets_equal_scipy_in_float64(scale, low):
    support = hl_gauss_support(low * scale, scale, BINS)
    values = values_across(support)
    # float32 knows a position among 50 bins to about 50 · 6e-8 · 2 bin widths.
    np.testing.assert_allclose(
        hl_gauss_targets(values, support), targets_by_scipy(values, support), atol=1e-5
    )


@pytest.mark.parametrize("sigma_ratio", [0.1, 0.75, 3.0])
def test_targets_equal_scipy_at_every_width_in_float64(sigma_ratio):
    with jax.enable_x64(True):
        support = hl_gauss_support(-10.0, 10.0, BINS)
        values = values_across(support)
        targets = hl_gauss_targets(values, support, sigma_ratio)
        expected = targets_by_scipy(values, support, sigma_ratio)
        np.testing.assert_allclose(targets, expected, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("scale", SCALES)
def test_targets_keep_the_digits_of_small_masses(scale):
    support = hl_gauss_support(-scale, scale, BINS)
    middle = support[BINS // 2 : BINS // 2 + 1]
    targets, expected = hl_gauss_targets(middle, support)[0], targets_by_scipy(middle, support)[0]
    # Masses from 1e-9 up are right to 0.1 %, in both tails alike.
    seen = expected > 1e-9
    assert seen.sum() > 8
    np.testing.assert_allclose(targets[seen], expected[seen], rtol=1e-3)
    np.testing.assert_allclose(targets, targets[::-1], rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_targets_are_probabilities_everywhere(scale):
    support = hl_gauss_support(-scale, scale, BINS)
    targets = hl_gauss_targets(values_across(support, count=501), support)
    assert np.all(targets >= 0.0)
    # A float32 sum of 51 numbers that add up to one.
    np.testing.assert_allclose(targets.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_value_of_a_target_is_the_target_away_from_the_ends(scale):
    support = hl_gauss_support(-scale, scale, BINS)
    width = 2 * scale / (BINS - 1)
    # Five widths (6.7 σ) inside, nothing is cut off; binning a normal of 0.75 widths shifts its
    # mean by 1e-5 widths; float32 adds about 1e-5 widths more.
    values = np.linspace(-scale + 5 * width, scale - 5 * width, 200).astype(np.float32)
    represented = value_of_target(values, support)
    np.testing.assert_allclose(represented, values, rtol=0, atol=1e-4 * width)


def test_values_outside_the_support_count_as_its_ends():
    support = hl_gauss_support(0.0, 1.0, 11)
    targets = hl_gauss_targets(jnp.array([-5.0, 0.0, 1.0, 7.0]), support)
    np.testing.assert_array_equal(targets[0], targets[1])
    np.testing.assert_array_equal(targets[2], targets[3])
    # At an end the bin there is whole and the other half of the normal is missing: mirror images.
    np.testing.assert_allclose(targets[1], targets[2][::-1], rtol=1e-4, atol=1e-9)


def test_loss_of_uniform_logits_is_log_bins():
    support = hl_gauss_support(0.0, 1.0, 16)
    loss = hl_gauss_loss(jnp.zeros((3, 16)), jnp.array([0.0, 0.3, 1.0]), support)
    np.testing.assert_allclose(loss, np.log(16.0), rtol=1e-6)


def test_loss_is_the_cross_entropy_with_scipys_targets():
    support = hl_gauss_support(-1.0, 1.0, BINS)
    values = values_across(support)
    logits = random_logits(len(values), BINS)
    wide = np.float64(logits)
    log_softmax = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    expected = -np.sum(targets_by_scipy(values, support) * log_softmax, -1)
    np.testing.assert_allclose(hl_gauss_loss(logits, values, support), expected, rtol=1e-5)


def test_cross_entropy_is_that_of_optax_and_so_is_its_gradient():
    logits, labels = random_logits(5, BINS), jax.nn.softmax(random_logits(5, BINS, seed=1))
    both = [
        jax.value_and_grad(lambda x, loss=loss: loss(x, labels).sum())(jnp.asarray(logits))
        for loss in (ops.cross_entropy, optax.softmax_cross_entropy)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *both)


def test_no_gradient_reaches_the_probabilities():
    logits, labels = jnp.asarray(random_logits(3, 7)), jax.nn.softmax(random_logits(3, 7))
    gradient = jax.grad(lambda p: ops.cross_entropy(logits, p).sum())(labels)
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_probabilities_of_another_shape_are_refused(unchecked_annotations):
    with pytest.raises(ValueError, match=r"logits.*\[2, 5\].*probabilities.*\[2, 6\]"):
        ops.cross_entropy(np.zeros((2, 5)), np.zeros((2, 6)))


def test_loss_is_smallest_where_the_prediction_is_the_target():
    support = hl_gauss_support(-1.0, 1.0, 21)
    values = jnp.array([-0.5, 0.0, 0.73])
    best = np.log(np.asarray(hl_gauss_targets(values, support)) + np.float32(1e-30))
    gradient = jax.jit(jax.grad(lambda x: hl_gauss_loss(x, values, support).sum()))(best)
    np.testing.assert_allclose(gradient, np.zeros_like(gradient), atol=1e-6)
    entropy = hl_gauss_loss(best, values, support)
    assert np.all(hl_gauss_loss(best[::-1], values, support)[::2] > entropy[::2] + 0.1)


def test_loss_is_finite_for_enormous_logits():
    support = hl_gauss_support(0.0, 1.0, 3)
    logits = jnp.array([[1e4, 0.0, -1e4]])

    def loss(logits):
        return hl_gauss_loss(logits, jnp.array([1.0]), support).sum()

    value, gradient = jax.value_and_grad(loss)(logits)
    assert np.isfinite(value)
    assert value > 1e4 / 2
    assert np.all(np.isfinite(gradient))


def test_no_gradient_reaches_the_target():
    support = hl_gauss_support(0.0, 1.0, 7)
    logits = random_logits(3, 7)
    gradient = jax.jit(jax.grad(lambda x, g: hl_gauss_loss(x, g, support).sum(), argnums=(0, 1)))
    into_logits, into_targets = gradient(logits, np.float32([0.1, 0.5, 1.0]))
    np.testing.assert_array_equal(into_targets, np.zeros(3))
    assert np.all(np.abs(into_logits).max(-1) > 1e-3)


def test_gradients_of_the_loss_and_of_the_value():
    with jax.enable_x64(True):
        support = ops.hl_gauss_support(-1.0, 2.0, 7)
        logits = jnp.float64(random_logits(3, 7))
        values = jnp.array([-1.0, 0.2, 3.0])

        def both(logits):
            return ops.hl_gauss_loss(logits, values, support), ops.hl_gauss_value(logits, support)

        check_grads(jax.jit(both), [logits], 1, modes=["rev"], rtol=1e-5)


def test_value_of_one_hot_logits_is_that_centre():
    support = hl_gauss_support(-2.0, 2.0, 5)
    values = hl_gauss_value(1e3 * np.eye(5, dtype=np.float32), support)
    np.testing.assert_array_equal(values, support)


def test_value_stays_inside_the_support():
    support = hl_gauss_support(0.0, 150.0, 151)
    logits = 100 * random_logits(1000, 151)
    values = hl_gauss_value(logits, support)
    # The softmax sums to one within 151 roundings.
    assert values.min() >= 0.0
    assert values.max() <= 150.0 * (1 + 151 * np.finfo(np.float32).eps)


def test_too_few_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins is 1; a support needs at least 2"):
        ops.hl_gauss_support(0.0, 1.0, 1)


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2, -2)])
def test_ends_out_of_order_are_refused(ends):
    with pytest.raises(ValueError, match=f"v_min is {ends[0]} and v_max is {ends[1]}"):
        ops.hl_gauss_support(*ends, 5)


@pytest.mark.parametrize("call", [hl_gauss_value, lambda x, s: hl_gauss_loss(x, np.zeros(4), s)])
@pytest.mark.parametrize(("shape", "text"), [((4, 5), r"\[4, 5\]"), ((), r"\[\]")])
def test_logits_without_one_entry_per_bin_are_refused(unchecked_annotations, call, shape, text):
    with pytest.raises(ValueError, match=rf"logits is {text} .* 6 entries, one per bin"):
        call(np.zeros(shape), hl_gauss_support(0.0, 1.0, 6))


def test_targets_with_other_axes_than_the_logits_are_refused(unchecked_annotations):
    support = hl_gauss_support(0.0, 1.0, 6)
    with pytest.raises(ValueError, match=r"logits is \[4, 6\] but targets is \[4, 1\]"):
        hl_gauss_loss(jnp.zeros((4, 6)), jnp.zeros((4, 1)), support)


def test_a_bin_ruled_out_costs_nothing_where_nothing_is_wanted_of_it():
    logits, labels = jnp.array([[0.5, -0.5, -jnp.inf]]), jnp.array([[0.3, 0.7, 0.0]])
    support = hl_gauss_support(0.0, 1.0, 3)

    def both(logits):
        return jnp.stack([ops.cross_entropy(logits, labels), hl_gauss_value(logits, support)]).sum()

    value, gradient = jax.jit(jax.value_and_grad(both))(logits)
    log_softmax = logits[0, :2] - np.log(np.exp(logits[0, :2]).sum())
    expected = -np.sum(labels[0, :2] * log_softmax) + 0.5 * np.exp(log_softmax[1])
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.all(np.isfinite(gradient))
    assert gradient[0, 2] == 0.0


def test_a_bin_ruled_out_costs_everything_where_something_is_wanted_of_it():
    loss = ops.cross_entropy(jnp.array([[0.0, -jnp.inf]]), jnp.array([[0.9, 0.1]]))
    np.testing.assert_array_equal(loss, [np.inf])


def test_an_infinite_logit_takes_all_and_no_distribution_is_nan():
    support = hl_gauss_support(0.0, 1.0, 3)
    values = hl_gauss_value(jnp.array([[0.0, jnp.inf, 5.0], [-jnp.inf] * 3]), support)
    np.testing.assert_array_equal(values, [0.5, np.nan])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_tells_151_bins_apart(dtype):
    support = jnp.linspace(0.0, 150.0, 151).astype(dtype)
    targets = hl_gauss_targets(jnp.asarray([149.0], dtype), support)
    # bfloat16 has no number between 148 and 149: computed in it, edges would coincide and masses be 0.
    expected = targets_by_scipy([149.0], np.arange(151.0))
    np.testing.assert_allclose(np.float64(targets), expected, atol=float(jnp.finfo(dtype).eps))


def test_finite_logits_need_no_guard():
    """The same numbers and gradients, with and without it."""
    logits = 5.0 * jax.random.normal(jax.random.key(0), (8, 21))
    support = hl_gauss_support(-1.0, 3.0, 21)
    wanted = hl_gauss_targets(jnp.linspace(-1.0, 3.0, 8), support)

    def total(logits, finite):
        loss = ops.cross_entropy(logits, wanted, finite_logits=finite)
        return (loss + ops.hl_gauss_value(logits, support, finite_logits=finite)).sum()

    free, guarded = (jax.grad(lambda x, f=f: total(x, f))(logits) for f in (True, False))
    np.testing.assert_allclose(free, guarded, rtol=1e-5, atol=1e-7)
