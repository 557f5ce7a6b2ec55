"""The same policies in two engines: the control suite's tasks in EnvPool and in MuJoCo Playground's MJX.

python benchmarks/engines.py                                        five tasks, trained for a while in EnvPool
python benchmarks/engines.py CartpoleBalance --steps 100000 --seeds 2
python benchmarks/engines.py WalkerRun --preset any --trained-in playground

For each task: trains policies in one engine, runs the same ones in both, compares returns, first observations and
the tasks' own facts, and says what differs. JSON beside those of `hosts.py policy`, which takes a run's policies.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import record
from settings import our_settings, read_our_changes
from suites import check_tasks, full_name, playground_name

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.envs.playground import load_task as load_playground
from reppo_fx.run.loop import compile_programs, run_loop
from reppo_fx.run.policies import policies_of
from reppo_fx.run.session import closing
from reppo_fx.run.worlds import bind
from reppo_fx.sweeps.members import flatten_members

TASKS = ("CartpoleBalance", "ReacherEasy", "BallInCupCatch", "CheetahRun", "WalkerWalk")
EPISODES, STARTS = 32, 256
# What of a model decides how it moves.
OPTIONS = (
    "timestep",
    "integrator",
    "solver",
    "cone",
    "iterations",
    "ls_iterations",
    "disableflags",
)
ARRAYS = (
    "body_mass",
    "dof_damping",
    "dof_armature",
    "dof_frictionloss",
    "jnt_stiffness",
    "jnt_range",
    "actuator_gear",
    "actuator_ctrlrange",
)
# In standard errors, in standard deviations of an entry, and as a ratio of these.
FAR, SHIFTED, WIDER = 3.0, 0.35, 1.35


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--preset", default="any")
    parser.add_argument("--steps", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trained-in", choices=("envpool", "playground"), default="envpool")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=record.RESULTS / "hosts")
    return parser.parse_args()


def train_policies(arguments: argparse.Namespace, task: str) -> Any:
    """Policies of all seeds, after the last step."""
    sizes = [f"total_steps={arguments.steps}", "num_evals=2", "num_eval_envs=8"]
    changes = read_our_changes(arguments.preset, [*sizes, *arguments.set])
    config, hp = our_settings(arguments.preset, changes)
    keys, members = flatten_members(rx.grid(hp), arguments.seeds, jax.random.key(0))
    with closing(bind(full_name(task), config)) as train:
        programs = compile_programs(train, keys, members)
        state = programs.init(keys, members)
        for progress in run_loop(train, programs, state):
            state = progress.state
            if progress.metrics is not None:
                means = np.asarray(progress.metrics.eval_return).round(1).tolist()
                print(f"{task} {progress.env_steps} steps: {means}", flush=True)
        return policies_of(train, state)


def compare(task: str, policies: Any, episodes: int = EPISODES) -> dict[str, Any]:
    """Returns of the same policies in both engines, and what differs between these, as sentences.

    Args:
        task: by EnvPool's name, without its version.
        policies: stacked.
        episodes: of each policy in each engine.

    Raises:
        ValueError: if Playground does not have the task.
    """
    name = playground_name(task)
    if name is None:
        raise ValueError(f"{task} is not a task of MuJoCo Playground.")
    pure = rx.envs.playground(name)
    count = len(jax.tree.leaves(policies)[0])
    with hosts.envpool(f"{task}-v1", episodes * count) as simulator:
        starts = (first_observations(pure), first_of_simulator(simulator))
        both = models(task)
        sentences = [
            *facts(pure, simulator),
            *(of_models(*both) if both else ()),
            *of_starts(*starts),
        ]
        if starts[0].shape[1] != starts[1].shape[1]:
            return {"task": task, "episodes": episodes, "differs": sentences}
        found = hosts.evaluate_policy(simulator, policies, 1000, seed=0).returns
    evaluate = lambda one: rx.evaluate_policy(pure, one, jax.random.key(0), episodes, 1000).returns
    returns = {
        "mjx": np.asarray(jax.jit(jax.vmap(evaluate))(policies)),
        "envpool": np.asarray(found),
    }
    return {
        "task": task,
        "episodes": episodes,
        **{
            engine: {
                "mean": float(x.mean()),
                "std_over_episodes": float(x.std()),
                "by_policy": x.mean(1).round(2).tolist(),
            }
            for engine, x in returns.items()
        },
        "differs": [*sentences, *of_returns(returns["mjx"], returns["envpool"])],
    }


def first_observations(env: rx.envs.Environment) -> np.ndarray:
    """Of many starts, `[starts, entries]`."""
    keys = jax.random.split(jax.random.key(1), STARTS)
    return np.asarray(jax.jit(jax.vmap(lambda key: env.reset(key)[1]))(keys))


def first_of_simulator(simulator: hosts.HostEnvironment) -> np.ndarray:
    """The same, of as many starts of all instances as it takes: an instance of EnvPool's is 14 MiB."""
    times = -(-STARTS // simulator.num_envs)
    first = [np.array(simulator.reset(seed=1))]
    return np.concatenate([*first, *(np.array(simulator.reset()) for _ in range(times - 1))])


def facts(pure: rx.envs.Environment, simulator: hosts.HostEnvironment) -> list[str]:
    """What the tasks say of themselves, where the two say different things."""
    names = ("action_size", "episode_length", "action_seconds")
    told = [(name, getattr(pure, name), getattr(simulator, name)) for name in names]
    return [
        f"{name} is {one} in MJX and {other} in EnvPool"
        for name, one, other in told
        if one is not None and other is not None and not np.isclose(one, other, rtol=1e-3)
    ]


def of_models(one: Any, other: Any) -> list[str]:
    """What differs between a task's MuJoCo models: Playground's, and that of EnvPool's file.

    A task may change its model when it starts: FingerSpin its damping.
    """
    said = []
    for names, parts in ((OPTIONS, (one.opt, other.opt)), (ARRAYS, (one, other))):
        for name in names:
            mjx, envpool = (np.asarray(getattr(part, name), float) for part in parts)
            if mjx.shape != envpool.shape or not np.allclose(mjx, envpool, rtol=1e-3):
                texts = [worded(name, values.ravel()) for values in (mjx, envpool)]
                said.append(f"{name} is {texts[0]} in MJX and {texts[1]} in EnvPool's file")
    return said


def worded(name: str, values: np.ndarray) -> str:
    """Numbers, or what MuJoCo calls them.

    >>> worded("integrator", np.array([1.0])), worded("disableflags", np.array([16.0]))
    ('RK4', 'CONTACT')
    """
    import mujoco

    kinds = {"integrator": "mjtIntegrator", "solver": "mjtSolver", "cone": "mjtCone"}

    def last(member: Any) -> str:
        return str(member.name).rpartition("_")[2]

    if name in kinds:
        return last(getattr(mujoco, kinds[name])(int(values[0])))
    if name == "disableflags":
        bits = [
            bit for bit in mujoco.mjtDisableBit.__members__.values() if bit.name != "mjNDISABLE"
        ]
        return " ".join(last(bit) for bit in bits if int(bit) & int(values[0])) or "none"
    return " ".join(f"{value:.3g}" for value in values)


def models(task: str) -> tuple[Any, Any] | None:
    """A task's MuJoCo models; none where EnvPool's file is not found by the task's name."""
    import mujoco

    known = importlib.util.find_spec("envpool_assets")
    where = known.submodule_search_locations if known else None
    if not where:
        return None
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", task).lower()
    files = Path(where[0]).glob("mujoco/assets_dmc/*.xml")
    found = [path for path in files if snake.startswith(path.stem)]
    if not found:
        return None
    longest = max(found, key=lambda path: len(path.stem))
    playground: Any = load_playground(str(playground_name(task)))
    return playground.mj_model, mujoco.MjModel.from_xml_path(str(longest))


def of_starts(mjx: np.ndarray, envpool: np.ndarray) -> list[str]:
    """Entries of the first observation whose mean or spread over starts differs.

    >>> one, other = np.zeros((4, 2)), np.zeros((4, 3))
    >>> of_starts(one, other)
    ['observations have 2 entries in MJX and 3 in EnvPool, so that no policy fits both']
    >>> of_starts(one, one + np.array([0.0, 1.0]))
    ['entry 1 of the first observation is 0 ± 0 in MJX and 1 ± 0 in EnvPool']
    """
    if mjx.shape[1] != envpool.shape[1]:
        sizes = f"{mjx.shape[1]} entries in MJX and {envpool.shape[1]} in EnvPool"
        return [f"observations have {sizes}, so that no policy fits both"]
    means, spreads = (np.array([f(mjx, 0), f(envpool, 0)]) for f in (np.mean, np.std))
    # What does not vary may differ by rounding.
    shift = abs(means[0] - means[1]) / np.maximum(spreads.max(0), 1e-2)
    ratio = (spreads.max(0) + 1e-2) / (spreads.min(0) + 1e-2)
    return [
        f"entry {i} of the first observation is {means[0, i]:.3g} ± {spreads[0, i]:.2g} in MJX and "
        f"{means[1, i]:.3g} ± {spreads[1, i]:.2g} in EnvPool"
        for i in np.flatnonzero((shift > SHIFTED) | (ratio > WIDER))
    ]


def of_returns(mjx: np.ndarray, envpool: np.ndarray) -> list[str]:
    """Policies whose mean return differs by more than chance; returns are `[policies, episodes]`.

    >>> episodes = np.tile([400.0, 600.0], (1, 8))
    >>> of_returns(episodes, episodes + 20.0), of_returns(episodes, episodes + 200.0)
    ([], ['policy 0 has a return of 500 in MJX and 700 in EnvPool, 5.5 standard errors apart'])
    """
    errors = np.sqrt((mjx.var(1, ddof=1) + envpool.var(1, ddof=1)) / mjx.shape[1])
    apart = abs(mjx.mean(1) - envpool.mean(1)) / np.maximum(errors, 1.0)
    return [
        f"policy {i} has a return of {mjx[i].mean():.0f} in MJX and {envpool[i].mean():.0f} in EnvPool, "
        f"{apart[i]:.1f} standard errors apart"
        for i in np.flatnonzero(apart > FAR)
    ]


def main() -> None:
    arguments = parse()
    check_tasks(arguments.tasks)
    for task in arguments.tasks:
        label = f"{arguments.trained_in}-{arguments.steps // 1000}k"
        path = arguments.out / f"policy_{label}_{task}_0.json"
        if path.exists():
            continue
        where = f"playground:{playground_name(task)}"
        named = full_name(task) if arguments.trained_in == "envpool" else where
        found = compare(task, train_policies(arguments, named))
        for engine in ("mjx", "envpool"):
            print(task, engine, found.get(engine))
        print("\n".join(f"- {sentence}" for sentence in found["differs"]) or "- nothing differs")
        record.write({**record.stamp(), "folder": label, **found}, path)


if __name__ == "__main__":
    main()
