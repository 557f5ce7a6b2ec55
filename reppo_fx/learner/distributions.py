"""What an actor's outputs mean: one bundle of functions. Beyond those who make one, nobody knows which it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, PyTree, ScalarLike

from ..settings import Hyperparameters


class PolicySample(NamedTuple):
    """One draw per state.

    Attributes:
        action: `a`, as the critic sees it.
        log_prob: `log π(a|x)` in nats.
        latent: what the action was computed from; with it densities are exact where the action alone saturates.
    """

    action: PyTree[Array]
    log_prob: Float[Array, "*batch"]
    latent: PyTree[Array]


@runtime_checkable
class LogProb(Protocol):
    """`log π(a|x)`, from the action alone or exactly, with its latent."""

    def __call__(
        self, policy: PyTree[Array], action: PyTree[Array], latent: PyTree[Array] | None = None
    ) -> Float[Array, "*batch"]: ...


@runtime_checkable
class SampledKL(Protocol):
    """`KL(π_old ‖ π_new)` from samples of the old policy.

    `clip` is the distance from the edge of the action range at which the *new* density is taken; none for an
    unbiased estimate. A distribution without edges ignores it.
    """

    def __call__(
        self,
        key: Array,
        old: PyTree[Array],
        new: PyTree[Array],
        *,
        num_samples: int,
        clip: float | None = None,
    ) -> Float[Array, "*batch"]: ...


class Distribution(NamedTuple):
    """A family of policies for one kind of action. A *policy* is a PyTree of parameters, one entry per state.

    Attributes:
        num_outputs: numbers that the actor gives per state.
        policy: `(outputs, hyperparameters) -> policy`.
        sample: `(key, policy) -> PolicySample`, reparameterized where the family can be.
        log_prob: `(policy, action, latent=None) -> log π(a|x)`.
        kl: `(old, new) -> KL(old ‖ new)`, exact.
        kl_sampled: the same from samples, `(key, old, new, num_samples=, clip=)`.
        entropy: `(key, policy, num_samples) -> H`, in nats.
        mode: `policy -> action`, for evaluation.
        to_environment: `action -> action` that the environment (and the critic after it) gets.
        target_entropy: `(hyperparameters, policy) -> H_target` in nats for the whole action, mean over the states.
        logits: `policy -> [*batch, n]`, unnormalized log-probabilities of every action, where they can be listed:
            then values, objectives and KL are exact sums. None where they cannot.
        widen: `(policy, number of instances -> scales) -> policy` with that much more spread in each instance
            (the last axis of states); none where that has no meaning.
        num_normals: how many standard normal numbers make an action; 0 where `from_normals` is none.
        from_normals: `(policy, normals [*batch, num_normals]) -> action`, distributed as the policy where the
            numbers are independent standard normal ones: noise that follows a process in time goes in here.
    """

    num_outputs: int
    policy: Callable[[Array, Hyperparameters], PyTree[Array]]
    sample: Callable[[Array, PyTree[Array]], PolicySample]
    log_prob: LogProb
    kl: Callable[[PyTree[Array], PyTree[Array]], Float[Array, "*batch"]]
    kl_sampled: SampledKL
    entropy: Callable[[Array, PyTree[Array], int], Float[Array, "*batch"]]
    mode: Callable[[PyTree[Array]], PyTree[Array]]
    to_environment: Callable[[PyTree[Array]], PyTree[Array]]
    target_entropy: Callable[[Hyperparameters, PyTree[Array]], ScalarLike]
    logits: Callable[[PyTree[Array]], Float[Array, "*batch n"]] | None = None
    widen: Callable[[PyTree[Array], Callable[[int], Array]], PyTree[Array]] | None = None
    num_normals: int = 0
    from_normals: Callable[[PyTree[Array], Float[Array, "*batch k"]], PyTree[Array]] | None = None
