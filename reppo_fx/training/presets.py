"""Named settings: where each comes from, and what it is for."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from .._errors import unknown_name
from .._ranges import as_count
from ..settings import Config, Hyperparameters
from . import original

# What one would choose on paper: exact KL, one set of statistics per iteration, multipliers with an optimizer
# of their own, independent noise, nothing masked. It has not been shown to learn better: see docs/differences.md.
CLEANER: dict[str, Any] = {
    "kl_estimator": "exact",
    "statistics": "iteration",
    "dual_optimizer": "own",
    "noise": "independent",
    "mask_truncated": False,
}
PURPOSES: dict[str, str] = {
    "any": "small enough for two cores, for any task: rewards of any size and sign, episodes of any length",
    "cpu": "smaller, with a fixed range of values: tasks that pay between 0 and 1 a step",
    "dmc": "the setting behind the published DMC numbers, 50 M steps on an accelerator; rewards between 0 and 1",
    "humanoid": "joystick tasks of G1, T1 and their like, with values between -10 and 10 and a privileged critic",
    "authors": "every choice of the original code, spelled out; values between 0 and 150 as in dmc",
}
"""What each preset is for. Values outside its support are learned as its ends: rewards of another scale or sign
need `v_min`, `v_max` or `reward_scale` of their own."""

FITTED = "any"
"""The preset of the command line, which fits some of its settings to the task."""
EPISODE_SETTINGS = ("discount", "training_time_limit")
"""Those that fit its episodes."""
DISCRETE_SETTINGS: dict[str, float] = {
    "initial_temperature": 0.8,
    "temperature_rate": 1.0,
    "min_temperature": 0.2,
    "min_temperature_spread": 0.0,
}
"""Those that fit discrete actions: a policy that stays random until values are right does not fall back."""
DISCRETE_DISCOUNT = 0.99
"""The least of discrete actions: each of them changes little, and what goes wrong slowly, as a cart that drifts off
its track, is not seen within the horizon of a short episode."""
FITTED_SETTINGS = (*EPISODE_SETTINGS, *DISCRETE_SETTINGS)
"""All of them."""

MIN_TEMPERATURE = 0.1
"""Of `FITTED`, for all dimensions of an action together."""

# What both small presets learn with.
LEARNING: dict[str, float] = {
    "learning_rate": 3e-3,
    "final_learning_rate": 0.1,
    "trace_decay": 0.98,
    "min_std": 0.05,
}
SMALL = Config(
    total_steps=307_200,
    num_envs=64,
    num_steps=32,
    num_epochs=4,
    num_minibatches=8,
    num_evals=10,
    num_eval_envs=16,
    actor_width=64,
    critic_width=64,
    num_bins=51,
    **CLEANER,
)
PRESETS: dict[str, tuple[Config, Hyperparameters]] = {
    # Small enough for two cores; chosen by measurement, see docs/results.
    "cpu": (
        SMALL,
        Hyperparameters(
            **LEARNING,
            discount=0.98,
            entropy_target=1.5,
            # Exploration has to last until a swing-up is found; from 0.01 both Cartpole tasks stall.
            initial_temperature=0.8,
            v_max=100.0,
            # Wider than the published 0.005: benchmarks/results/ablations.md.
            sigma=0.015,
        ),
    ),
    # Rewards are divided by a scale that follows the values of now, so every number below is free of their unit.
    "any": (
        dataclasses.replace(
            SMALL,
            # As many starts as 64 have with training episodes half as long, in which what pays is met less.
            num_envs=128,
            num_steps=16,
            # With 64, WalkerRun takes twice the steps, and some seeds miss the ball in the cup.
            actor_width=128,
            critic_width=128,
            num_bins=101,
            value_scale="range",
            exploration="correlated",
        ),
        Hyperparameters(
            **LEARNING,
            # As published. A higher one keeps a pole from being held.
            entropy_target=0.5,
            initial_temperature=0.1,
            temperature_rate=0.3,
            # Below the critic's error, policies follow that error where all values are alike, and come loose.
            min_temperature=MIN_TEMPERATURE,
            # Where values differ they guide it, and a pole is held by small, exact actions.
            min_temperature_spread=20.0,
            v_min=-100.0,
            v_max=100.0,
            # Wide: sparse rewards are found by it (benchmarks/README.md, what was tried for unknown tasks).
            sigma=0.02,
            # Where pushing on finds what pays, as in a swing-up, and only until most instances have found it.
            noise_correlation=0.97,
            exploration_density=0.5,
        ),
    ),
    # The setting behind the published DMC numbers.
    "dmc": (Config(), Hyperparameters()),
    # Humanoid locomotion (G1, T1 joystick tasks).
    "humanoid": (
        Config(critic_width=1024, num_minibatches=16),
        Hyperparameters(discount=0.97, v_min=-10.0, v_max=10.0),
    ),
    # Every choice of the original code, spelled out, so that it stays when a default changes.
    "authors": (Config(**original.CHOICES), Hyperparameters()),
}
"""Named pairs of settings; `PURPOSES` says what each is for, and `preset` gives one with changes."""


def horizon_discount(
    episode_length: SupportsIndex, lowest: float | int = 0.95, highest: float | int = 0.995
) -> float:
    """`γ = 1 − 10 / episode length`, within bounds: a horizon of a tenth of the episode.

    Where an episode is short the rule looks too little ahead: 50 steps would get 0.8, with which ManiSkill's
    PullCube stays at reaching the cube, and 0.95 has learned to pull it.

    Args:
        episode_length: in steps.
        lowest: of what is given back.
        highest: of it, for episodes of thousands of steps.

    Returns:
        `γ`.

    Raises:
        ValueError: if the length is below 1, or the bounds are not in order within [0, 1].

    Source: REPPO (arXiv 2507.11019), how its discounts were tuned; the bounds are ours.

    >>> horizon_discount(1000), horizon_discount(50), horizon_discount(400)
    (0.99, 0.95, 0.975)
    """
    length = as_count("episode_length", episode_length)
    if not 0.0 <= lowest <= highest <= 1.0:
        raise ValueError(
            f"lowest is {lowest} and highest is {highest}; they must be in order, from 0 to 1."
        )
    return min(max(1.0 - 10.0 / length, lowest), highest)


def training_episode(episode_length: SupportsIndex, horizons: float | int = 5) -> int:
    """`min(episode length, horizons / (1 − γ))`, `γ` the `horizon_discount`: how long to train at a stretch.

    Cut episodes bootstrap from their true successors, so nothing is said of the task that is not so, and more of
    them begin: with few instances there are few starts (targets to reach, places to begin from), and those of the
    moment are learned at the cost of the others. What comes late in an episode is seen less.

    Args:
        episode_length: in steps.
        horizons: how many of them; with fewer, what takes long is never reached.

    Returns:
        Steps, for `training_time_limit`: rounded, and at least 1.

    Raises:
        ValueError: if the length is below 1, or `horizons` is not positive.

    >>> training_episode(1000), training_episode(200), training_episode(20)
    (500, 100, 20)
    """
    if not horizons > 0.0:
        raise ValueError(f"horizons is {horizons}; it must be positive.")
    length = as_count("episode_length", episode_length)
    return min(length, max(1, round(horizons / (1.0 - horizon_discount(length)))))


def preset(name: str, **config_changes: Any) -> tuple[Config, Hyperparameters]:
    """A named pair of settings, with fields of the config changed.

    Args:
        name: `"any"`, `"cpu"`, `"dmc"`, `"humanoid"` or `"authors"`; `PURPOSES` says what each is for.
        **config_changes: fields of `Config` to replace.

    Returns:
        `(config, hyperparameters)`.

    Raises:
        ValueError: for an unknown name, with the nearest ones.

    >>> config, hyperparameters = preset("dmc", num_envs=256)
    >>> config.num_envs, config.num_steps, hyperparameters.learning_rate
    (256, 128, 0.0003)
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    config, hyperparameters = PRESETS[name]
    return dataclasses.replace(config, **config_changes), hyperparameters


@runtime_checkable
class FittedWorld(Protocol):
    """A world, pure or not."""

    @property
    def episode_length(self) -> int | None: ...
    @property
    def num_actions(self) -> int | None: ...
    @property
    def action_size(self) -> int: ...


def settings_to_fit(preset: str, given: Collection[str]) -> set[str]:
    """Those that a preset leaves to the task, but for what is given: none but of `FITTED`."""
    return set(FITTED_SETTINGS) - set(given) if preset == FITTED else set()


def fit_to_world(
    world: FittedWorld, config: Config, hyperparameters: Hyperparameters, names: Collection[str]
) -> tuple[Config, Hyperparameters]:
    """Settings with those of `names` as they fit a world.

    Its episodes give `horizon_discount` and, where actions are continuous, `training_episode`; discrete actions
    `DISCRETE_SETTINGS`, at least `DISCRETE_DISCOUNT`, and whole episodes: what a few actions reach by chance, as in
    Acrobot, they reach late.
    The `d` dimensions of a continuous one share `MIN_TEMPERATURE`: a policy `exp(Q / α)` loses `α / 2` of its value
    in each of them (`Q` quadratic), so the same bound for every task would take more from a robot than from a pole.

    Args:
        world: an environment or a simulator. Where it does not say how long its episodes are, and
            `config.episode_length` does not either, what would fit them stays.
        config: the static settings.
        hyperparameters: the others.
        names: of `FITTED_SETTINGS`.

    Returns:
        `(config, hyperparameters)`.
    """
    discrete = world.num_actions is not None
    shared = {"min_temperature": MIN_TEMPERATURE / world.action_size}
    fitted = dict(DISCRETE_SETTINGS) if discrete else shared
    length = config.episode_length or world.episode_length
    if length is not None:
        fitted["discount"] = horizon_discount(length)
        if discrete:
            fitted["discount"] = max(fitted["discount"], DISCRETE_DISCOUNT)
        if "training_time_limit" in names and not discrete:
            config = dataclasses.replace(config, training_time_limit=training_episode(length))
    own = {name: value for name, value in fitted.items() if name in names}
    return config, hyperparameters._replace(**own)


def preset_for(
    world: FittedWorld, name: str = FITTED, **config_changes: Any
) -> tuple[Config, Hyperparameters]:
    """A preset with what fits a world's episodes: `horizon_discount` and `training_episode` of their length.

    `"any"` is fitted to its actions, too. The dimensions of a continuous one share the bound under the temperature,
    `0.1 / d`. Where they are discrete, training episodes stay whole, the discount is at least 0.99 (with every
    preset), and the first temperature is higher, falls faster, and has a higher bound that no spread of values
    lowers: 0.8, rate 1, 0.2 and 0 in place of 0.1, 0.3, 0.1 and 20. The command line does the same with
    `--preset any` for all of these that are not given.

    Args:
        world: an environment or a simulator. Where it does not say how long its episodes are, and `episode_length`
            is not changed either, the preset's own discount stays.
        name: of the preset.
        **config_changes: fields of `Config` to replace; `training_time_limit` stays as it is given here.

    Returns:
        `(config, hyperparameters)`.

    Raises:
        ValueError: for an unknown name.

    >>> from reppo_fx.envs import probes
    >>> config, hyperparameters = preset_for(probes.match_observation(), episode_length=200)
    >>> hyperparameters.discount
    0.95
    >>> config.training_time_limit
    100
    """
    settings = FITTED_SETTINGS if name == FITTED else EPISODE_SETTINGS
    names = set(settings) - set(config_changes)
    return fit_to_world(world, *preset(name, **config_changes), names)
