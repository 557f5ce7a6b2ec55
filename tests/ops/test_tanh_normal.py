import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.stats import norm

from reppo_fx import ops

# Compiled for speed; the conformance table checks that eager calls agree.
tanh_normal_sample = jax.jit(ops.tanh_normal_sample)
tanh_normal_log_prob = jax.jit(ops.tanh_normal_log_prob)
tanh_normal_kl = jax.jit(ops.tanh_normal_kl)
tanh_normal_kl_sampled = jax.jit(
    ops.tanh_normal_kl_sampled, static_argnames=("num_samples", "clip")
)
tanh_normal_entropy = jax.jit(ops.tanh_normal_entropy, static_argnames="num_samples")

KEY = jax.random.key(0)


def policies(rows=6, d=3, seed=0):
    """Means within ±1 or so, standard deviations between 0.1 and 2."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(rows, d)).astype(np.float32)
    std = rng.uniform(0.1, 2.0, size=(rows, d)).astype(np.float32)
    return mean, std


def squashed(mean, std):
    normal = distrax.Normal(jnp.asarray(mean), jnp.asarray(std))
    return distrax.Independent(distrax.Transformed(normal, distrax.Tanh()), 1)


def log_prob_by_scipy(u, mean, std):
    """The definition in float64: fine while tanh(u) is not within 1e-12 of ±1."""
    u, mean, std = np.float64(u), np.float64(mean), np.float64(std)
    return np.sum(norm.logpdf(u, mean, std) - np.log1p(-np.square(np.tanh(u))), axis=-1)


def test_density_at_zero_of_the_standard_policy_by_hand():
    one = np.ones(1, np.float32)
    # The slope of tanh at 0 is 1, so it is the normal density 1/√(2π), here twice as narrow.
    log_prob = tanh_normal_log_prob(0 * one, one / 2, pre_tanh=0 * one)
    np.testing.assert_allclose(log_prob, np.log(2 / np.sqrt(2 * np.pi)), rtol=1e-6)


def test_densities_equal_distrax_and_scipy():
    mean, std = policies()
    u = mean + std * np.random.default_rng(1).normal(size=mean.shape).astype(np.float32)
    ours = tanh_normal_log_prob(mean, std, pre_tanh=u)
    # Sums of three float32 terms of order ten; distrax inverts tanh and loses more near ±1.
    np.testing.assert_allclose(ours, log_prob_by_scipy(u, mean, std), rtol=1e-5, atol=1e-5)
    inside = np.abs(u).max(-1) < 2.0
    assert inside.sum() >= 3
    theirs = squashed(mean, std).log_prob(jnp.tanh(u))
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.3), (-1.5, 1.0), (0.7, 1.3)])
def test_density_over_the_action_integrates_to_one(mean, std):
    with jax.enable_x64(True):
        # Midpoints; the mass that the grid does not see, where |u| > 6, is below 1e-4.
        count = 200_000
        actions = (np.arange(count) + 0.5) * (2.0 / count) - 1.0
        columns = np.full((count, 1), mean), np.full((count, 1), std), actions[:, None]
        density = np.exp(tanh_normal_log_prob(*columns, clip=1e-12))
    np.testing.assert_allclose(density.mean() * 2.0, 1.0, atol=1e-4)


def test_density_is_finite_and_right_far_into_saturation():
    u = np.array([[-40.0], [9.5], [40.0]], np.float32)
    log_prob = tanh_normal_log_prob(u, np.ones_like(u), pre_tanh=u)
    # log(1 − tanh²u) → 2 log 2 − 2|u|
    expected = -0.5 * np.log(2 * np.pi) - 2 * np.log(2) + 2 * np.abs(u[:, 0])
    np.testing.assert_allclose(log_prob, expected, rtol=1e-6)


@pytest.mark.parametrize("clip", [1e-6, 1e-3])
def test_density_of_a_bare_action_at_the_edge_is_that_at_the_clip(clip):
    action = np.array([[-1.0], [1.0]], np.float32)
    zero, one = np.zeros_like(action), np.ones_like(action)
    at_edge = tanh_normal_log_prob(zero, one, action, clip=clip)
    edge = np.arctanh(1.0 - np.float64(clip))
    # float32 knows the clip of 1e-6 to 3 % only, and so the atanh to 0.015.
    expected = log_prob_by_scipy(edge, np.zeros(1), np.ones(1))
    np.testing.assert_allclose(at_edge, expected, atol=0.12 if clip < 1e-5 else 1e-3)


def many(rows, *columns):
    """The same policies for each of many states."""
    return [np.broadcast_to(np.float32(x), (rows, np.size(x))) for x in columns]


def test_sample_is_the_mean_plus_scaled_noise_squashed():
    mean, std = policies(rows=20_000, d=1)
    draw = tanh_normal_sample(KEY, mean, std)
    noise = (draw.pre_tanh - mean) / std
    again = tanh_normal_sample(KEY, np.zeros_like(mean), np.ones_like(std)).pre_tanh
    # Undoing mean and std costs a few roundings of numbers up to 5, over a std of 0.1 at least.
    np.testing.assert_allclose(noise, again, atol=1e-4)
    np.testing.assert_allclose(draw.action, np.tanh(draw.pre_tanh), atol=1e-6)
    # A normal of std 0.1 has its log-density in squares of up to 4; tanh's slope is off by 1e-5 at |u| = 8.
    expected = log_prob_by_scipy(draw.pre_tanh, mean, std)
    np.testing.assert_allclose(draw.log_prob, expected, rtol=1e-4, atol=1e-4)


def test_samples_have_the_policys_quantiles():
    count = 20_000
    actions = np.asarray(tanh_normal_sample(KEY, *many(count, 0.4, 0.8)).action)
    for quantile in (0.1, 0.5, 0.9):
        bound = np.tanh(norm.ppf(quantile, 0.4, 0.8))
        # Four standard errors of a share of 20 000.
        margin = 4 * np.sqrt(quantile * (1 - quantile) / count)
        assert abs(np.mean(actions < bound) - quantile) < margin


def test_mode_is_the_squashed_mean():
    mean = jnp.array([[-20.0, -0.5, 0.0, 0.5]])
    np.testing.assert_allclose(ops.tanh_normal_mode(mean), np.tanh(mean), atol=1e-6)


def test_kl_by_hand():
    def column(value):
        return np.full((1,), value, np.float32)

    # log(2/1) + (1 + 3²) / (2 · 2²) − 1/2
    kl = tanh_normal_kl(column(0.0), column(1.0), column(3.0), column(2.0))
    np.testing.assert_allclose(kl, np.log(2.0) + 10.0 / 8.0 - 0.5, rtol=1e-6)


def test_kl_is_zero_for_equal_policies_and_positive_otherwise():
    old, new = policies(seed=0), policies(seed=1)
    np.testing.assert_array_equal(tanh_normal_kl(*old, *old), np.zeros(6))
    assert np.all(tanh_normal_kl(*old, *new) > 0.01)


def test_kl_equals_that_of_distrax_normals():
    old, new = policies(seed=0), policies(seed=1)
    theirs = distrax.Normal(*map(jnp.asarray, old)).kl_divergence(
        distrax.Normal(*map(jnp.asarray, new))
    )
    np.testing.assert_allclose(tanh_normal_kl(*old, *new), theirs.sum(-1), rtol=1e-5)


def narrow_pair():
    """Two policies that stay away from ±1, where a density taken from the action keeps its digits."""
    mean_old, std_old = np.array([0.2, -0.4], np.float32), np.array([0.3, 0.4], np.float32)
    return (mean_old, std_old), (mean_old + np.float32(0.2), std_old * np.float32(1.3))


def test_kl_equals_that_of_squashed_distrax_policies_by_sampling():
    old, new = narrow_pair()
    ours = tanh_normal_kl(*old, *new)

    @jax.jit
    def sampled_differences():
        before, after = squashed(*old), squashed(*new)
        actions, log_probs = before.sample_and_log_prob(seed=KEY, sample_shape=20_000)
        return log_probs - after.log_prob(actions)

    differences = np.asarray(sampled_differences())
    error = np.std(differences) / np.sqrt(len(differences))
    assert error < 0.05 * ours
    assert abs(np.mean(differences) - ours) < 4 * error


@pytest.mark.parametrize("clip", [None, 1e-4])
def test_sampled_kl_agrees_with_the_closed_form_within_its_error(clip):
    old, new = narrow_pair()
    estimates = np.asarray(tanh_normal_kl_sampled(KEY, *many(2000, *old, *new), clip=clip))
    exact = tanh_normal_kl(*old, *new)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert error < 0.05 * exact
    assert abs(np.mean(estimates) - exact) < 4 * error


def test_sampled_kl_of_a_policy_with_itself_is_zero_sample_by_sample():
    mean, std = policies(rows=2000, d=2)
    np.testing.assert_array_equal(tanh_normal_kl_sampled(KEY, mean, std, mean, std), np.zeros(2000))


def test_sampled_kl_of_a_saturated_policy_with_itself_reads_large_only_with_clip():
    saturated, inside = many(2000, [8.0, 0.0], [0.5, 0.5]), many(2000, [0.1, 0.0], [0.5, 0.5])
    exact = tanh_normal_kl_sampled(KEY, *saturated, *saturated)
    clipped = tanh_normal_kl_sampled(KEY, *saturated, *saturated, clip=1e-4)
    np.testing.assert_array_equal(exact, np.zeros(2000))
    # The edge is at atanh(0.9999) = 4.95: some 18 nats of distance and 6 of slope.
    assert 20.0 < np.mean(clipped) < 28.0
    unaffected = tanh_normal_kl_sampled(KEY, *inside, *inside, clip=1e-4)
    # atanh(tanh(u)) returns u to 1e-4 or so.
    np.testing.assert_allclose(unaffected, np.zeros(2000), atol=1e-3)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (1.0, 0.2), (0.0, 0.87)])
def test_entropy_agrees_with_numerical_integration_within_its_error(mean, std):
    estimates = np.asarray(tanh_normal_entropy(KEY, *many(1000, mean, std), num_samples=16))
    u = np.linspace(mean - 8 * std, mean + 8 * std, 4001)
    log_slope = 2 * (np.log(2) - u - np.logaddexp(0.0, -2 * u))
    expected = norm(mean, std).entropy() + np.trapezoid(norm.pdf(u, mean, std) * log_slope, u)
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert error < 0.02
    assert abs(np.mean(estimates) - expected) < 4 * error


def test_entropy_is_at_most_that_of_the_uniform_distribution_and_comes_near_it():
    estimates = np.asarray(tanh_normal_entropy(KEY, *many(1000, 0.0, 0.87), num_samples=16))
    # Its error is 0.01 nats; the exact value for this std, the best one, is 0.02 below log 2.
    assert np.log(2.0) - 0.08 < np.mean(estimates) < np.log(2.0)


def test_gradients_of_densities_and_divergences():
    with jax.enable_x64(True):
        old = [jnp.float64(x) for x in policies(rows=2)]
        new = [jnp.float64(x) for x in policies(rows=2, seed=1)]

        def everything(mean, std, mean_new, std_new, action):
            kl = ops.tanh_normal_kl(mean, std, mean_new, std_new)
            return kl, ops.tanh_normal_log_prob(mean, std, action)

        inputs = (*old, *new, jnp.tanh(0.5 * new[0]))
        check_grads(jax.jit(everything), inputs, 1, modes=["rev"], rtol=1e-4)


def test_gradients_flow_through_samples():
    with jax.enable_x64(True):
        mean, std = (jnp.float64(x) for x in policies(rows=2))

        def from_samples(mean, std):
            kl = ops.tanh_normal_kl_sampled(KEY, mean, std, mean + 0.1, 1.2 * std, 2, clip=1e-4)
            return kl, ops.tanh_normal_entropy(KEY, mean, std, 2)

        check_grads(jax.jit(from_samples), (mean, std), 1, modes=["rev"], rtol=1e-4)


def test_gradients_of_a_sample_by_hand_also_far_into_saturation():
    mean, std = np.float32([[30.0, -30.0, 0.3]]), np.float32([[1.0, 1.0, 0.5]])

    def action_and_density(mean, std):
        draw = ops.tanh_normal_sample(KEY, mean, std)
        return draw.action.sum(), draw.log_prob.sum()

    action_by, log_prob_by = jax.jit(jax.jacrev(action_and_density, argnums=(0, 1)))(mean, std)
    draw = tanh_normal_sample(KEY, mean, std)
    noise, slope = (draw.pre_tanh - mean) / std, 1.0 - np.square(draw.action)
    # A sample moves with its mean by 1 and with its std by the noise, then through tanh.
    np.testing.assert_allclose(action_by, [slope, slope * noise], rtol=1e-3, atol=1e-6)
    # Its normal density depends on std alone, and −log(1 − tanh²u) has the slope 2 tanh u.
    pull = 2.0 * draw.action
    np.testing.assert_allclose(log_prob_by, [pull, pull * noise - 1.0 / std], rtol=1e-3, atol=1e-5)


def test_exactly_one_of_action_and_pre_tanh():
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="exactly one of action and pre_tanh .* not neither"):
        tanh_normal_log_prob(one, one)
    with pytest.raises(ValueError, match="exactly one of action and pre_tanh .* not both"):
        tanh_normal_log_prob(one, one, one, pre_tanh=one)


@pytest.mark.parametrize("given", ["action", "pre_tanh"])
def test_a_log_density_does_not_broadcast_by_accident(unchecked_annotations, given):
    many, one = np.ones((5, 2), np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match=rf"{given} is \[2\] but mean is \[5, 2\]"):
        tanh_normal_log_prob(many, many, **{given: one})


@pytest.mark.parametrize("num_samples", [0, -3])
def test_at_least_one_sample(num_samples):
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match=f"num_samples is {num_samples}; at least 1"):
        tanh_normal_entropy(KEY, one, one, num_samples=num_samples)
    with pytest.raises(ValueError, match=f"num_samples is {num_samples}; at least 1"):
        tanh_normal_kl_sampled(KEY, one, one, one, one, num_samples=num_samples)


@pytest.mark.parametrize("function", [tanh_normal_sample, tanh_normal_entropy])
def test_mean_and_std_of_other_shapes_are_named(unchecked_annotations, function):
    with pytest.raises(ValueError, match=r"mean is \[4, 2\] but std is \[2\]"):
        function(KEY, np.zeros((4, 2)), np.ones(2))


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize(("position", "name"), enumerate(["std_old", "mean_new", "std_new"], 1))
def test_kl_names_the_array_of_another_shape(unchecked_annotations, sampled, position, name):
    arrays = [np.ones((4, 2))] * 4
    arrays[position] = np.ones(2)
    function = (lambda *xs: tanh_normal_kl_sampled(KEY, *xs)) if sampled else tanh_normal_kl
    with pytest.raises(ValueError, match=rf"mean_old is \[4, 2\] but {name} is \[2\]"):
        function(*arrays)


HALF = [jnp.float16, jnp.bfloat16]


@pytest.mark.parametrize("dtype", [jnp.float32, *HALF])
@pytest.mark.parametrize("clip", [1e-6, 1e-9, 0.0])
@pytest.mark.parametrize("edge", [1.0, -1.0, 1.5])
def test_density_at_the_edge_is_finite_in_every_precision_and_at_every_clip(dtype, clip, edge):
    action = jnp.full((2, 3), edge, dtype)

    def total(mean, std):
        return ops.tanh_normal_log_prob(mean, std, action, clip=clip).sum()

    mean, std = jnp.full((2, 3), 0.5, dtype), jnp.ones((2, 3), dtype)
    log_prob, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(mean, std)
    assert log_prob.dtype == dtype
    for x in (log_prob, *gradients):
        assert np.all(np.isfinite(np.float64(x)))


@pytest.mark.parametrize("dtype", HALF)
def test_density_at_the_edge_in_half_precision_is_that_of_float32(dtype):
    one = np.ones((1, 3), np.float32)
    expected = tanh_normal_log_prob(0 * one, one, one)
    half = tanh_normal_log_prob(*(jnp.asarray(x, dtype) for x in (0 * one, one, one)))
    np.testing.assert_allclose(np.float64(half), expected, rtol=float(jnp.finfo(dtype).eps))


SCALES = [2.5, np.float32(0.4), np.float32([0.5, 2.0, 7.0])]


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_densities_equal_distrax_and_scipy(scale):
    mean, std = policies()
    scale = scale if isinstance(scale, float) else jnp.asarray(scale)
    u = mean + std * np.random.default_rng(1).normal(size=mean.shape).astype(np.float32)
    u = np.clip(u, -2.0, 2.0)
    c = np.broadcast_to(np.float32(scale), mean.shape)
    log_probs = [
        tanh_normal_log_prob(mean, std, pre_tanh=u, scale=scale),
        tanh_normal_log_prob(mean, std, c * np.tanh(u), scale=scale),
    ]
    expected = log_prob_by_scipy(u, mean, std) - np.log(np.float64(c)).sum(-1)
    squash = distrax.Chain([distrax.ScalarAffine(jnp.zeros(3), jnp.asarray(c[0])), distrax.Tanh()])
    theirs = distrax.Independent(distrax.Transformed(distrax.Normal(mean, std), squash), 1)
    for log_prob in log_probs:
        # A bare action's u is known to 1e-6 or so, and divided by a std of 0.1.
        np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=2e-4)
        np.testing.assert_allclose(log_prob, theirs.log_prob(c * jnp.tanh(u)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_samples_modes_and_entropies(scale):
    mean, std = map(jnp.asarray, policies())
    scale = scale if isinstance(scale, float) else jnp.asarray(scale)
    c = np.broadcast_to(np.float32(scale), mean.shape)
    loss = np.log(c).sum(-1)
    plain, scaled = tanh_normal_sample(KEY, mean, std), tanh_normal_sample(KEY, mean, std, scale)
    np.testing.assert_array_equal(scaled.pre_tanh, plain.pre_tanh)
    np.testing.assert_allclose(scaled.action, c * plain.action, rtol=1e-6)
    np.testing.assert_allclose(scaled.log_prob, plain.log_prob - loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ops.tanh_normal_mode(mean, scale), c * np.tanh(mean), rtol=1e-5)
    entropies = [tanh_normal_entropy(KEY, mean, std, scale=x) for x in (1.0, scale)]
    np.testing.assert_allclose(entropies[1], entropies[0] + loss, rtol=1e-5, atol=1e-5)


def test_density_over_a_scaled_action_integrates_to_one():
    with jax.enable_x64(True):
        count, scale = 200_000, 3.0
        actions = scale * ((np.arange(count) + 0.5) * (2.0 / count) - 1.0)
        columns = np.full((count, 1), 0.3), np.full((count, 1), 0.7), actions[:, None]
        density = np.exp(tanh_normal_log_prob(*columns, clip=1e-12, scale=scale))
    np.testing.assert_allclose(density.mean() * 2.0 * scale, 1.0, atol=1e-4)


def test_kl_is_that_of_scaled_policies_too():
    (mean, std), (mean_new, std_new) = narrow_pair()
    scale = jnp.array([0.5, 3.0])
    draw = tanh_normal_sample(KEY, *many(20_000, mean, std), scale)
    new = tanh_normal_log_prob(*many(20_000, mean_new, std_new), draw.action, scale=scale)
    differences = np.asarray(draw.log_prob - new)
    error = np.std(differences) / np.sqrt(len(differences))
    assert abs(differences.mean() - tanh_normal_kl(mean, std, mean_new, std_new)) < 4 * error


def test_a_scale_of_one_costs_nothing():
    mean, std = policies()

    def program(**scale):
        return str(jax.make_jaxpr(lambda: ops.tanh_normal_sample(KEY, mean, std, **scale))())

    mean, std = jnp.asarray(mean), jnp.asarray(std)
    assert program() == program(scale=1.0) == program(scale=1)
    assert len(program()) < len(program(scale=2.0))
    np.testing.assert_array_equal(ops.tanh_normal_mode(mean, 1.0), ops.tanh_normal_mode(mean))


@pytest.mark.parametrize("scale", [0.0, -2.0, -1])
def test_a_scale_without_a_logarithm_is_refused(scale):
    mean, std = map(jnp.asarray, policies())
    calls = [
        lambda: ops.tanh_normal_sample(KEY, mean, std, scale),
        lambda: ops.tanh_normal_log_prob(mean, std, mean, scale=scale),
        lambda: ops.tanh_normal_mode(mean, scale),
        lambda: ops.tanh_normal_entropy(KEY, mean, std, scale=scale),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"scale is {scale}; it must be positive"):
            call()


@pytest.mark.parametrize("shape", [(2,), (6, 3)])
def test_a_scale_of_another_shape_is_named(unchecked_annotations, shape):
    mean, std = policies()
    text = str(list(shape)).replace("[", r"\[")
    with pytest.raises(ValueError, match=rf"scale is {text} but must be one number or \[3\]"):
        tanh_normal_sample(KEY, mean, std, np.ones(shape, np.float32))
