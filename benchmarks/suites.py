"""The suites' tasks, found as the command line finds them: `FAMILY:NAME`; checked before any is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from host_trains import value_of
from published import DMC

from reppo_fx import envs, hosts
from reppo_fx._errors import unknown_name

# What two cores step fast enough to judge every change by.
CHEAP = (
    "CartpoleBalance",
    "CartpoleBalanceSparse",
    "CartpoleSwingup",
    "CartpoleSwingupSparse",
    "PendulumSwingup",
    "PointMassEasy",
    "ReacherEasy",
    "ReacherHard",
    "CheetahRun",
    "BallInCupCatch",
)
# Cheap, easy, hard to explore, with and without contacts, and none that every variant solves at once.
SIX = (
    "CartpoleSwingup",
    "ReacherHard",
    "BallInCupCatch",
    "CheetahRun",
    "FingerSpin",
    "WalkerRun",
)
HUMANOID = (
    "envpool:Humanoid-v5",
    "envpool:HumanoidStandup-v5",
    "HumanoidStand",
    "HumanoidWalk",
    "HumanoidRun",
    "playground:G1JoystickFlatTerrain",
    "playground:T1JoystickFlatTerrain",
)
# Those whose files come with the package, and that two cores step at all.
MANISKILL = (
    "PullCube-v1",
    "PickCube-v1",
    "LiftPegUpright-v1",
    "PokeCube-v1",
    "RollBall-v1",
    "PegInsertionSide-v1",
    "UnitreeG1PlaceAppleInBowl-v1",
    "UnitreeG1TransportBox-v1",
)
# Those that its pipeline `spring` has.
BRAX = (
    "reacher",
    "pusher",
    "inverted_pendulum",
    "inverted_double_pendulum",
    "hopper",
    "walker2d",
    "halfcheetah",
    "ant",
)
GYMNAX = (
    "CartPole-v1",
    "Pendulum-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "SpaceInvaders-MinAtar",
)
# By name. A bare name is a task of the control suite in EnvPool, everything else `FAMILY:NAME`.
SUITES: dict[str, tuple[str, ...]] = {
    "cheap": CHEAP,
    "six": SIX,
    "dmc": DMC,
    "humanoid": HUMANOID,
    "maniskill": tuple(f"maniskill:{name}" for name in MANISKILL),
    "brax": tuple(f"brax:{name}" for name in BRAX),
    "gymnax": tuple(f"gymnax:{name}" for name in GYMNAX),
}
# What tasks are made with where the command line does not say: the pipeline of Brax's that CPUs step fastest (64
# hoppers: 72,000 steps a second of one core's time, `positional` 24,000, `generalized` 10,000).
OPTIONS: dict[str, dict[str, Any]] = {"brax": {"backend": "spring"}}
# Playground's names for tasks of the control suite that are called otherwise.
PLAYGROUND_NAMES = {"BallInCupCatch": "BallInCup", "PointMassEasy": "PointMass"}


def full_name(task: str) -> str:
    """As the command line takes it.

    >>> full_name("CheetahRun"), full_name("brax:hopper")
    ('envpool:CheetahRun-v1', 'brax:hopper')
    """
    return task if ":" in task else f"envpool:{task}-v1"


def playground_name(task: str) -> str | None:
    """The same task in MuJoCo Playground, which must be installed; none if it has none: `"BallInCup"` for
    `"BallInCupCatch"`."""
    prefix, _, name = full_name(task).partition(":")
    if prefix == "envpool":
        name = name.removesuffix("-v1")
    elif prefix != "playground":
        return None
    name = PLAYGROUND_NAMES.get(name, name)
    return name if name in envs.playground_names() else None


def families() -> dict[str, Any]:
    """Who brings tasks, by the word before the colon: `names()` says which."""
    return {**{family.extra: family for family in envs.FAMILIES}, **hosts.FAMILIES}


def check_tasks(tasks: Iterable[str]) -> None:
    """Say at once what would be found out in the middle of the night.

    Raises:
        ValueError: for a task that its family does not have, or that cannot be learned.
        ImportError: if the family's package is not installed.
    """
    for task in tasks:
        prefix, _, name = full_name(task).partition(":")
        if prefix not in families():
            known = ", ".join(families())
            raise ValueError(
                f"--tasks has {task!r}, of family {prefix!r}; families are {known}, and a name without one is a "
                "task of the control suite in EnvPool."
            )
        names = families()[prefix].names()
        if name not in names:
            raise ValueError(f"--tasks has {task!r}: {unknown_name(f'{prefix} task', name, names)}")
        if prefix in hosts.FAMILIES and not hosts.FAMILIES[prefix].learnable(name):
            raise ValueError(
                f"--tasks has {task!r}, whose observations or actions cannot be learned."
            )


def options_of(task: str, texts: Sequence[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` as arguments of a task's adapter; its family's of `OPTIONS` where none are given.

    >>> options_of("brax:ant", None), options_of("brax:ant", ["backend=mjx"])
    ({'backend': 'spring'}, {'backend': 'mjx'})
    """
    if texts is None:
        return OPTIONS.get(full_name(task).partition(":")[0], {})
    pairs = [text.partition("=") for text in texts]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"--env has {' '.join(texts)!r}; each must be NAME=VALUE.")
    return {name: value_of(value) for name, _, value in pairs}
