"""HL-Gauss: regression of a scalar as classification over bins with Gaussian-smoothed targets.

Source for all of this file: Imani & White (arXiv 1806.04613); Farebrother et al. (arXiv 2403.03950), section 3;
the critic's loss in REPPO (arXiv 2507.11019).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from ._checks import match_dtype, require_last_axis, require_same_shape
from ._numerics import constant, shifted_logits, weighted, widened


def hl_gauss_support(
    v_min: ScalarLike, v_max: ScalarLike, num_bins: int
) -> Float[Array, " {num_bins}"]:
    """Bin centres, `c_i = v_min + i (v_max − v_min) / (num_bins − 1)`.

    The range must hold every return: what lies outside counts as its end. More bins cost time and add nothing
    once a width `σ` is resolved (0.75 bin widths or more).

    Args:
        v_min: smallest representable value; may be traced.
        v_max: largest representable value; may be traced.
        num_bins: number of bins, at least 2.

    Returns:
        The centres `[num_bins]`, evenly spaced, both ends included.

    Raises:
        ValueError: if `num_bins < 2`, or if both ends are plain numbers and `v_min ≥ v_max`.

    >>> print(hl_gauss_support(0.0, 1.0, 5))
    [0.   0.25 0.5  0.75 1.  ]
    """
    if num_bins < 2:
        raise ValueError(f"num_bins is {num_bins}; a support needs at least 2 bins.")
    if isinstance(v_min, float | int) and isinstance(v_max, float | int) and v_min >= v_max:
        raise ValueError(f"v_min is {v_min} and v_max is {v_max}; v_min must be below v_max.")
    v_min = jnp.asarray(v_min, dtype=jnp.result_type(float))
    v_max = jnp.asarray(v_max, dtype=jnp.result_type(float))
    # Interpolating from both ends keeps the ends exact at any scale.
    fraction = jnp.arange(num_bins, dtype=v_min.dtype) / (num_bins - 1)
    return v_min * (1.0 - fraction) + v_max * fraction


def hl_gauss_targets(
    values: Float[Array, "*batch"],
    support: Float[Array, " bins"],
    sigma_ratio: ScalarLike = 0.75,
) -> Float[Array, "*batch bins"]:
    r"""Probability mass of `Normal(y, σ)` in each bin, renormalized on the support.

    `p_i ∝ Φ((e_{i+1} − y)/σ) − Φ((e_i − y)/σ)`, `σ = sigma_ratio · w`, bin width `w`, edges `e` half a
    width outside the centres, `y` clipped to `[v_min, v_max]`.

    Differences are taken between tail masses, and in units of bin widths, so that no mass is negative or
    lost to cancellation, at any scale of the support.

    The width σ decides how much neighbouring values share: compute targets once and give them to
    `cross_entropy` where a batch is learned from several times; `hl_gauss_loss` does both at once.

    Args:
        values: `y`, any shape.
        support: bin centres, as from `hl_gauss_support`.
        sigma_ratio: `σ` in bin widths.

    Returns:
        Probabilities, one row of `[bins]` per value.

    >>> s = hl_gauss_support(-1.0, 1.0, 3)
    >>> [f"{p:.3f}" for p in hl_gauss_targets(jnp.array(0.0), s)]
    ['0.241', '0.519', '0.241']
    """
    dtype, (values, support) = widened(values, support)
    width = (support[-1] - support[0]) / (support.shape[0] - 1)
    clipped = jnp.clip(values, support[0], support[-1])
    position = ((clipped - support[0]) / width)[..., None]
    edges = jnp.arange(support.shape[0] + 1, dtype=support.dtype) - 0.5
    edges = jnp.broadcast_to(edges, (*values.shape, edges.size))
    z = (edges - position) / match_dtype(sigma_ratio, support)
    # Tail masses keep their digits where Φ itself is close to 1; one erfc per edge. Not abs(z), which has
    # no slope where a value lies on an edge.
    tail = 0.5 * jax.scipy.special.erfc(jnp.where(z < 0, -z, z) * (0.5**0.5))
    low, high = tail[..., :-1], tail[..., 1:]
    holds_centre = (z[..., :-1] < 0) & (z[..., 1:] >= 0)
    mass = jnp.where(holds_centre, 1.0 - low - high, jnp.abs(high - low))
    return (mass / mass.sum(-1, keepdims=True)).astype(dtype)


def hl_gauss_loss(
    logits: Float[Array, "*batch bins"],
    targets: Float[Array, "*batch"],
    support: Float[Array, " bins"],
    sigma_ratio: ScalarLike = 0.75,
    stop_gradients: bool = True,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy between the smoothed target and the predicted distribution.

    `L = −Σ_i p_i(G) log softmax(logits)_i`, with `p` from `hl_gauss_targets`; no gradient through `G`.

    The loss of REPPO's critic, for values whose range is known. Take `squared_value_loss` where it is not, and
    `cross_entropy` where the targets' probabilities are at hand.

    Args:
        logits: `[*batch, bins]`.
        targets: scalar targets `G`, in the units of the support; constant here.
        support: bin centres `[bins]`.
        sigma_ratio: `σ` in bin widths.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.

    Returns:
        One loss per target, in nats.

    Raises:
        ValueError: if `logits` does not have one entry per bin, or its other axes are not those of `targets`.

    >>> s = hl_gauss_support(0.0, 1.0, 2)
    >>> print(hl_gauss_loss(jnp.zeros((1, 2)), jnp.array([0.5]), s).round(4))
    [0.6931]
    """
    require_last_axis(support.shape[0], "one per bin of support", logits=logits)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits is {list(logits.shape)} but targets is {list(targets.shape)}; "
            "logits must have the axes of targets, then one entry per bin."
        )
    dtype, (logits, targets, support) = widened(logits, targets, support)
    probabilities = hl_gauss_targets(constant(targets, stop_gradients), support, sigma_ratio)
    return cross_entropy(logits, probabilities, stop_gradients).astype(dtype)


def cross_entropy(
    logits: Float[Array, "*batch bins"],
    probabilities: Float[Array, "*batch bins"],
    stop_gradients: bool = True,
    finite_logits: bool = False,
) -> Float[Array, "*batch"]:
    r"""Cross-entropy between given probabilities and the predicted distribution.

    `L = log Σ_i e^{l_i} − Σ_i p_i l_i`. `hl_gauss_loss` is this of `hl_gauss_targets`; call the two apart where
    the same targets are used more than once, because the targets cost more than the loss. A logit of `−∞` is
    a bin ruled out: it costs nothing where `p_i` is 0, and everything where it is not.

    Args:
        logits: `l`.
        probabilities: `p`, each row summing to one; constant here.
        stop_gradients: False where only the parameters are differentiated anyway and gradients through the
            update (meta-gradients) are wanted.
        finite_logits: True where no logit can be infinite, as from a network: the guard costs a critic 3 % of its
            update on a CPU.

    Returns:
        One loss per row, in nats.

    Raises:
        ValueError: if the shapes differ.

    >>> print(cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.5, 0.5]])).round(4))
    [0.6931]
    """
    require_same_shape(logits=logits, probabilities=probabilities)
    dtype, (logits, probabilities) = widened(logits, probabilities)
    shifted, exponentials = shifted_logits(logits, finite_logits)
    log_total = jnp.log(jnp.sum(exponentials, axis=-1))
    probabilities = constant(probabilities, stop_gradients)
    product = probabilities * shifted if finite_logits else weighted(probabilities, shifted)
    cross = jnp.sum(product, axis=-1)
    return (log_total - cross).astype(dtype)


def hl_gauss_value(
    logits: Float[Array, "*batch bins"],
    support: Float[Array, " bins"],
    finite_logits: bool = False,
) -> Float[Array, "*batch"]:
    r"""Expected value of the predicted distribution, `Σ_i softmax(logits)_i c_i`.

    The Q or V of a critic trained by `hl_gauss_loss`; differentiable, so that `pathwise_actor_loss` can take it.

    Args:
        logits: `[*batch, bins]`.
        support: bin centres `[bins]`.
        finite_logits: True where no logit can be infinite, as in `cross_entropy`.

    Returns:
        One value per row of logits, always inside `[v_min, v_max]`.

    Raises:
        ValueError: if `logits` does not have one entry per bin.

    >>> print(hl_gauss_value(jnp.zeros((2, 3)), hl_gauss_support(0.0, 4.0, 3)))
    [2. 2.]
    """
    require_last_axis(support.shape[0], "one per bin of support", logits=logits)
    dtype, (logits, support) = widened(logits, support)
    exponentials = shifted_logits(logits, finite_logits)[1]
    # Sums, not matmuls: accelerators may run matmuls with few digits. One division per row, not per bin.
    weighed = jnp.sum(exponentials * jnp.broadcast_to(support, logits.shape), axis=-1)
    return (weighed / jnp.sum(exponentials, axis=-1)).astype(dtype)
