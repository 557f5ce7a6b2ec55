"""Two kinds of settings: `Config`, static, decides shapes and branches; `Hyperparameters` are traced numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Array, ScalarLike

from ._ranges import check_ranges
from .ops._checks import require_choice

Value: TypeAlias = ScalarLike | Array
"""A number of any library, or an array with an axis of members."""

CHOICES: dict[str, tuple[str, ...]] = {
    "norm": ("rms", "layer", "none"),
    "critic": ("categorical", "squared"),
    "value_scale": ("fixed", "return", "spread", "reward", "target", "deviation", "range"),
    "exploration": ("none", "noise", "correlated"),
    "critic_offset": ("trainable", "constant"),
    "policy_gradient": ("pathwise", "score", "score_gae"),
    "kl_constraint": ("clipped", "penalty", "none"),
    "kl_estimator": ("exact", "sampled", "sampled_clipped"),
    "statistics": ("iteration", "step", "none"),
    "dual_optimizer": ("own", "actor"),
    "noise": ("independent", "reused"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a shape, a loop length or a branch. Hashable; changing one recompiles.

    The defaults are the setting behind the published DMC numbers, with every choice of the original code:
    a cleaner choice becomes a default only when learning curves say so.

    Sizes multiply like this: one iteration collects `num_envs × num_steps` environment steps and makes
    `num_epochs × num_minibatches` gradient steps on them.
    """

    total_steps: int = 50_000_000
    """Environment steps; rounded up to a whole number of iterations."""
    num_envs: int = 1024
    """Environment instances stepped together."""
    num_steps: int = 128
    """Steps per instance and iteration (T)."""
    num_epochs: int = 8
    """Passes over each iteration's batch."""
    num_minibatches: int = 64
    """Gradient steps per pass; must divide num_envs * num_steps."""
    num_evals: int = 20
    """Evaluations, evenly spaced; the last one is at the end. Never more than there are iterations."""
    num_eval_envs: int = 128
    """Episodes per evaluation."""
    episode_length: int | None = None
    """Steps of an evaluation episode; the task's own time limit if not given."""
    training_time_limit: int | None = None
    """Time limit while training, if another: cut episodes bootstrap from their true successors."""
    schedule_steps: int | None = None
    """Environment steps over which the learning rate falls; total_steps if not given."""
    num_value_samples: int = 1
    """Actions averaged for V(x') in the targets; discrete actions are all summed over."""
    num_kl_samples: int = 16
    """Actions per state where the KL is sampled."""
    actor_width: int = 512
    """Units per hidden layer of the actor."""
    actor_depth: int = 3
    """Linear layers of the actor, the last one included."""
    critic_width: int = 512
    """Units per hidden layer of the critic, and size of its embedding."""
    encoder_depth: int = 2
    """Linear layers of the critic's encoder."""
    head_depth: int = 2
    """Linear layers of the critic's value head."""
    predictor_depth: int = 2
    """Linear layers of the self-prediction head."""
    num_bins: int = 151
    """Bins of the categorical critic. They only have to resolve `sigma`, which is what matters."""
    norm: str = "rms"
    """Normalization layers: rms, layer or none."""
    critic: str = "categorical"
    """Value loss: categorical (HL-Gauss) or squared."""
    exploration: str = "none"
    """Whether some instances act with a wider policy while collecting (noise; see `exploration_noise_max`), or with
    noise that lasts for several steps (correlated; see `noise_correlation`)."""
    value_scale: str = "fixed"
    """What rewards are divided by: fixed (nothing), or a scale that follows the task: the largest return so far
    (return), their spread (spread), the largest reward for ever (reward), the targets of late (target), or their
    spread, about their mean (deviation); see `scaled_value_function`."""
    critic_offset: str = "trainable"
    """The start offset 40 * HLGauss(0) of the critic: trainable or constant."""
    self_prediction: bool = True
    """Whether to train the auxiliary task (its weight is a hyperparameter)."""
    policy_gradient: str = "pathwise"
    """How the actor improves: pathwise (through Q; discrete: its expectation), score (with Q) or score_gae."""
    kl_constraint: str = "clipped"
    """How the KL constraint enters the actor loss: clipped, penalty or none."""
    kl_estimator: str = "sampled_clipped"
    """sampled_clipped (as in the original code), sampled, or exact (closed form, and always so for discrete)."""
    statistics: str = "step"
    """When observation statistics change: at every step, once per iteration, or none (no normalization)."""
    dual_optimizer: str = "actor"
    """Multipliers share the actor's optimizer and gradient clip, or have their own Adam."""
    noise: str = "reused"
    """reused (one key for all minibatches of an epoch, one for action and value sample) or independent."""
    mask_truncated: bool = True
    """Leave truncated steps out of the critic loss, as code without true successors must."""
    action_limit: float = 0.999
    """Actions are clipped to this magnitude before the environment (and the critic) sees them."""

    observation_limit: float = 1e6
    """Observations and rewards beyond this magnitude are failures of the simulator, as NaN is; inf for none."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            # Numbers of any library become Python's, so that a config stays hashable and can be written down.
            object.__setattr__(self, field.name, _plain(field, getattr(self, field.name)))
        if self.num_bins < 2:
            raise ValueError(f"num_bins is {self.num_bins}; a support needs at least 2 bins.")
        if not 0.0 < self.action_limit <= 1.0:
            raise ValueError(f"action_limit is {self.action_limit}; it must be in (0, 1].")
        if not self.observation_limit > 0.0:
            raise ValueError(f"observation_limit is {self.observation_limit}; it must be positive.")
        if self.steps_per_iteration % self.num_minibatches:
            raise ValueError(
                f"num_minibatches is {self.num_minibatches}, but num_envs * num_steps = "
                f"{self.num_envs} * {self.num_steps} = {self.steps_per_iteration} must be a multiple of it."
            )

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps collected by one iteration."""
        return self.num_envs * self.num_steps

    @property
    def total_iterations(self) -> int:
        """Iterations of the whole run."""
        return math.ceil(self.total_steps / self.steps_per_iteration)

    @property
    def evaluations(self) -> tuple[int, ...]:
        """The iterations after which an evaluation is due: ascending, the last one at the end."""
        count = min(self.num_evals, self.total_iterations)
        return tuple((k + 1) * self.total_iterations // count for k in range(count))

    @property
    def iterations_between_evaluations(self) -> tuple[int, ...]:
        """Iterations before each evaluation, since the one before."""
        ends = self.evaluations
        return tuple(end - start for start, end in zip((0, *ends[:-1]), ends, strict=True))

    @property
    def schedule_iterations(self) -> int:
        """Iterations over which the learning rate falls."""
        steps = self.total_steps if self.schedule_steps is None else self.schedule_steps
        return math.ceil(steps / self.steps_per_iteration)

    @property
    def num_updates(self) -> int:
        """Gradient steps over which the learning rate falls."""
        return self.schedule_iterations * self.num_epochs * self.num_minibatches


class Hyperparameters(NamedTuple):
    """Traced numbers: an argument of `train`, so each can be vmapped, swept or annealed without recompiling.

    Attributes:
        learning_rate: Adam's step size for actor, critic and multipliers.
        final_learning_rate: the learning rate at the end, as a fraction of the first; linear in between.
        max_grad_norm: bound on the global norm of the actor's and the critic's gradient.
        discount: γ.
        trace_decay: λ of the λ-returns.
        kl_target: ε, nats per state and iteration.
        entropy_target: nats per action dimension; the target is `H ≥ −entropy_target · d`.
        entropy_share: for discrete actions, of the largest entropy: the target is `H ≥ entropy_share · log n`.
        initial_temperature: α₀.
        initial_multiplier: β₀.
        temperature_rate: the learning rate of `log α` is this many times `learning_rate`. Small values keep the
            entropy up for longer: at rate 1, log α falls by up to a learning rate in every gradient step.
        multiplier_rate: the same of `log β`.
        min_temperature: α stays at least this, scaled reward per nat, whatever the entropy: below the critic's
            error a policy follows that error, and comes loose where all values are alike. At most α₀; 0 for none.
        min_temperature_spread: the standard deviation of values, scaled reward, that needs no such bound:
            `min_temperature` falls to 0 as that of the targets rises to it. 0 for a bound that stays.
        aux_weight: weight of the self-prediction loss.
        v_min: lower end of the categorical critic's support.
        v_max: upper end.
        sigma: width of HL-Gauss's labels, as a share of the support's width `v_max − v_min`; at least 0.75 bin
            widths are used, so that bins resolve it.
        min_std: added to the policy's standard deviation.
        variance_floor: added to the observation variance before dividing by its root.
        exploration_noise_min: with `exploration="noise"`, what the first instances' standard deviation
            (discrete: the logits' temperature) is multiplied by while collecting.
        exploration_noise_max: and the last one's; linear in between.
        exploration_base: share of the instances that have the smallest factor; with correlated noise: none.
        exploration_density: with `exploration="correlated"`, noise lasts while `reward_density` is at most this;
            1 for always. What actions cost counts as nothing where it is all that most steps pay.
        noise_correlation: with `exploration="correlated"`, `ρ` of the noise from one step to the next.
        min_trace_weight: no return is trusted less than this for its action having been a wider policy's.
        reward_scale: rewards are multiplied by this for learning; evaluation reports the task's own.
    """

    learning_rate: Value = 3e-4
    final_learning_rate: Value = 1.0
    max_grad_norm: Value = 0.5
    discount: Value = 0.99
    trace_decay: Value = 0.95
    kl_target: Value = 0.1
    entropy_target: Value = 0.5
    entropy_share: Value = 0.2
    initial_temperature: Value = 0.01
    initial_multiplier: Value = 0.01
    temperature_rate: Value = 1.0
    multiplier_rate: Value = 1.0
    min_temperature: Value = 0.0
    min_temperature_spread: Value = 0.0
    aux_weight: Value = 1.0
    v_min: Value = 0.0
    v_max: Value = 150.0
    sigma: Value = 0.005
    min_std: Value = 0.1
    variance_floor: Value = 1e-2
    exploration_noise_min: Value = 1.0
    exploration_noise_max: Value = 1.0
    exploration_base: Value = 0.0
    exploration_density: Value = 1.0
    noise_correlation: Value = 0.95
    min_trace_weight: Value = 0.5
    reward_scale: Value = 1.0


def _plain(field: dataclasses.Field[object], value: object) -> object:
    """A field's value as the Python type that it is declared with.

    Raises:
        ValueError: naming the field, if it cannot be, or is not allowed.
    """
    name, kind = field.name, str(field.type)
    if name in CHOICES:
        require_choice(name, str(value), CHOICES[name])
        return str(value)
    if value is None and kind.endswith("None"):
        return None
    is_bool = isinstance(value, bool | np.bool_)
    if kind == "bool":
        if not is_bool:
            raise ValueError(f"{name} is {value!r}; it must be True or False.")
        return bool(value)
    if kind == "float":
        if is_bool or not isinstance(value, int | float | np.number):
            raise ValueError(f"{name} is {value!r}; it must be a number.")
        return float(value)
    if is_bool or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} is {value!r}; it must be a whole number.")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1.")
    return int(value)


def check_hyperparameters(hyperparameters: Hyperparameters) -> None:
    """Raise a sentence about the first value out of range; tracers have none and are left alone.

    Raises:
        ValueError: naming the leaf, its value and what is allowed.

    >>> check_hyperparameters(Hyperparameters(discount=[0.9, 1.2]))
    Traceback (most recent call last):
    ValueError: discount is [0.9, 1.2]; it must be a number, or an array of numbers.
    """
    check_ranges(hyperparameters._asdict())
