"""What must be true for the method to work, read from the metrics of a run; a sentence with the remedy if not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from .._errors import ReppoWarning
from ..settings import Hyperparameters
from .train import Metrics

# Shares of targets, states, steps above which a run is said not to work; where two evaluations in a row agree.
MOST_OUTSIDE = 0.05
MOST_CLOSED = 0.9
MOST_FAILURES = 0.01
LARGEST_MULTIPLIER, SMALLEST_MULTIPLIER = 1e6, 1e-12

Numbers = NDArray[np.floating[Any]]


class Finding(NamedTuple):
    """Something that keeps a run from working.

    Attributes:
        name: `"outside"`, `"diverged"`, `"gate"`, `"temperature"`, `"multiplier"` or `"simulator"`.
        members: which members of the run, by number.
        env_steps: environment steps when it was seen first.
        sentence: what it is, and the remedy.
    """

    name: str
    members: tuple[int, ...]
    env_steps: float
    sentence: str


Check = Callable[[Metrics, dict[str, Numbers]], Iterator[Finding]]


class ReppoRunWarning(ReppoWarning):
    """A run cannot work as it is set up: its values do not fit, or it has diverged."""


def diagnose(metrics: Metrics, hyperparameters: Hyperparameters) -> list[Finding]:
    """What keeps runs from working, in the order in which it was seen; each kind once.

    A compiled `train` cannot warn; `sweep`, `HostTrain` and the command line call this by themselves.

    Args:
        metrics: of one run, leaves `[evals]`; or of several, `[..., evals]`.
        hyperparameters: that they were trained with: numbers, or leaves with the same axes in front (or as many of
            them as there are settings).

    Returns:
        Findings; none is what one hopes for. What is a share of targets or states must hold at two evaluations in a
        row, for at the start of a run anything may be.

    >>> from reppo_fx import Config, Hyperparameters, make_train
    >>> from reppo_fx.envs import probes
    >>> config = Config(total_steps=128, num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2,
    ...                 num_evals=4, num_eval_envs=2, episode_length=8, actor_width=8, critic_width=8)
    >>> hp = Hyperparameters(v_min=-90.0, v_max=-80.0)  # but rewards are 1
    >>> _, metrics = jax.jit(make_train(probes.constant_reward(), config))(jax.random.key(0), hp)
    >>> print(diagnose(metrics, hp)[0].sentence.partition(":")[0])
    100% of the targets are outside of what the critic can hold
    """
    shape = np.shape(metrics.eval_return)
    flat: Metrics = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1, shape[-1]), metrics)
    hp = _by_member(hyperparameters, shape[:-1])
    found = [finding for check in _CHECKS for finding in check(flat, hp)]
    return sorted(found, key=lambda finding: finding.env_steps)


def warn_of_findings(
    metrics: Metrics, hyperparameters: Hyperparameters, stacklevel: int = 3
) -> None:
    """A `ReppoRunWarning` for each finding."""
    for finding in diagnose(metrics, hyperparameters):
        warnings.warn(finding.sentence, ReppoRunWarning, stacklevel=stacklevel)


class Watch:
    """`diagnose` while a run goes on: each finding is handed out once."""

    def __init__(self, hyperparameters: Hyperparameters) -> None:
        self._hyperparameters = hyperparameters
        self._seen: list[Metrics] = []
        self._told: set[str] = set()

    def evaluated(self, metrics: Metrics) -> list[Finding]:
        """What is new after an evaluation, whose leaves are `[members]`."""
        self._seen = [*self._seen[-1:], metrics]
        both: Metrics = jax.tree.map(
            lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves], -1), *self._seen
        )
        new = [f for f in diagnose(both, self._hyperparameters) if f.name not in self._told]
        self._told |= {finding.name for finding in new}
        return new


def _by_member(hp: Hyperparameters, shape: tuple[int, ...]) -> dict[str, Numbers]:
    def leaf(value: Any) -> Numbers:
        array = np.asarray(value, np.float64)
        array = array.reshape(array.shape + (1,) * (len(shape) - array.ndim))
        return np.broadcast_to(array, shape).ravel()

    return {name: leaf(value) for name, value in hp._asdict().items()}


class _Case(NamedTuple):
    """The first of the runs in trouble, at the evaluation where it was seen first."""

    metrics: Metrics
    hyperparameters: dict[str, Numbers]
    members: tuple[int, ...]
    member: int
    evaluation: int

    def of(self, leaf: Any) -> float:
        """A metric there."""
        return float(np.asarray(leaf)[self.member, self.evaluation])

    def set_to(self, name: str) -> float:
        """A hyperparameter of that run."""
        return float(self.hyperparameters[name][self.member])

    @property
    def which(self) -> str:
        """How many of the runs, where there are several."""
        total = len(np.asarray(self.metrics.eval_return))
        return "" if total == 1 else f" (in {len(self.members)} of {total} runs)"


Bad = Callable[[Metrics], NDArray[np.bool_]]
Sentence = Callable[[_Case], str]


def _check(name: str, bad: Bad, sentence: Sentence) -> Check:
    """A check of the evaluations `[members, evals]` that are bad."""

    def check(metrics: Metrics, hp: dict[str, Numbers]) -> Iterator[Finding]:
        where = bad(metrics)
        if not where.any():
            return
        members = tuple(int(member) for member in np.flatnonzero(where.any(1)))
        evaluation = int(where.any(0).argmax())
        case = _Case(metrics, hp, members, int(where[:, evaluation].argmax()), evaluation)
        yield Finding(name, members, case.of(metrics.env_steps), sentence(case))

    return check


def _twice(bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`[members, evals]`: true at an evaluation, and at the one before."""
    both = np.zeros_like(bad)
    both[:, 1:] = bad[:, 1:] & bad[:, :-1]
    return both


def _is_outside(metrics: Metrics) -> NDArray[np.bool_]:
    return _twice(np.asarray(metrics.training.outside) > MOST_OUTSIDE)


def _say_outside(case: _Case) -> str:
    training = case.metrics.training
    reward, target = case.of(training.reward), case.of(training.target)
    discount = case.set_to("discount")
    worth = reward / case.of(training.unit) / max(1.0 - discount, 1e-6)
    return (
        f"{case.of(training.outside):.0%} of the targets are outside of what the critic can hold: they are "
        f"cut to [v_min, v_max] = [{case.set_to('v_min'):g}, {case.set_to('v_max'):g}], and the mean target is "
        f"{target:.3g}{case.which}. Rewards of {reward:.3g} a step are worth {worth:.3g} at discount "
        f"{discount:g}. "
        'Set v_min and v_max to hold the task\'s values, or value_scale="return", which follows them.'
    )


def _has_diverged(metrics: Metrics) -> NDArray[np.bool_]:
    return np.asarray(np.asarray(metrics.training.skipped_updates) > 0)


def _say_diverged(case: _Case) -> str:
    training = case.metrics.training
    return (
        f"gradients were not finite from {case.of(training.diverged_at):.0f} steps on, and "
        f"{case.of(training.skipped_updates):.0f} gradient steps were left out{case.which}: parameters stayed "
        f"as they were. Lower learning_rate ({case.set_to('learning_rate'):g}), or look at what the "
        "environment gives."
    )


def _is_closed(metrics: Metrics) -> NDArray[np.bool_]:
    return _twice(np.asarray(metrics.training.learner.closed_gate) > MOST_CLOSED)


def _say_closed(case: _Case) -> str:
    learner = case.metrics.training.learner
    return (
        f"at {case.of(learner.closed_gate):.0%} of the states the policy is further from the last one than "
        f"kl_target ({case.set_to('kl_target'):g}; the mean KL is {case.of(learner.kl):.3g}), where it is only "
        f"pulled back{case.which}. Lower learning_rate ({case.set_to('learning_rate'):g}) or num_epochs, or raise "
        "kl_target or initial_multiplier."
    )


def _out_of_hand(name: str) -> Bad:
    def bad(metrics: Metrics) -> NDArray[np.bool_]:
        value = np.asarray(getattr(metrics.training.learner, name))
        return _twice(~((value < LARGEST_MULTIPLIER) & (value > SMALLEST_MULTIPLIER)))

    return bad


def _say_out_of_hand(name: str, constraint: str, remedy: str) -> Sentence:
    def sentence(case: _Case) -> str:
        value = case.of(getattr(case.metrics.training.learner, name))
        start = case.set_to(f"initial_{name}")
        return (
            f"the {name} is {value:.3g}, from {start:g} at the start{case.which}: {constraint} cannot be held. "
            f"{remedy}"
        )

    return sentence


def _fails(metrics: Metrics) -> NDArray[np.bool_]:
    steps = np.maximum(np.asarray(metrics.env_steps), 1.0)
    return np.asarray(np.asarray(metrics.training.nonfinite) / steps > MOST_FAILURES)


def _say_fails(case: _Case) -> str:
    return (
        f"{case.of(case.metrics.training.nonfinite):.0f} of {case.of(case.metrics.env_steps):.0f} environment "
        f"steps were not finite or beyond observation_limit{case.which}: they are left out, and their episodes "
        "end there. Look at the task's physics, or raise observation_limit if its numbers are meant."
    )


_CHECKS = (
    _check("outside", _is_outside, _say_outside),
    _check("diverged", _has_diverged, _say_diverged),
    _check("gate", _is_closed, _say_closed),
    _check(
        "temperature",
        _out_of_hand("temperature"),
        _say_out_of_hand(
            "temperature", "the entropy target", "Look at entropy, and at entropy_target."
        ),
    ),
    _check(
        "multiplier",
        _out_of_hand("multiplier"),
        _say_out_of_hand("multiplier", "kl_target", "Look at kl, and lower learning_rate."),
    ),
    _check("simulator", _fails, _say_fails),
)
