"""ManiSkill 3: manipulation tasks in SAPIEN, observed as states, on the CPU or on CUDA."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, PyTree
from numpy.typing import NDArray

from .._errors import unknown_name
from ..envs import seconds_of
from .base import HostTimeStep, Restarting
from .maniskill_build import Simulation, Task, built, package, registered
from .reading import as_array, columns, make_reader, numbers
from .spaces import ActionRange, read_box

DEFAULT_SIZE = 8
Success = Literal["terminate", "truncate", "continue"]
"""What becomes of an episode that has succeeded."""
BACKEND = re.compile(r"physx_(cpu|cuda(:\d+)?)")
# What `info` says besides a task's own numbers.
BOOKKEEPING = ("elapsed_steps", "reconfigure")
# Arguments of ManiSkill's that are this adapter's to set, and what to say instead.
OURS = {
    "num_envs": "give n",
    "obs_mode": 'it is always "state"',
    "max_episode_steps": "give episode_length",
    "render_mode": "states are all that is learned from",
}


def maniskill(
    name: str,
    n: int = DEFAULT_SIZE,
    *,
    success: Success = "truncate",
    episode_length: int | None = None,
    reward_mode: str = "normalized_dense",
    sim_backend: str = "physx_cpu",
    **options: Any,
) -> ManiSkill:
    """A task of ManiSkill 3, observed as a state vector, with actions in [−1, 1].

    Metrics are the task's own numbers of `info`: `success` of every step, and `success_once`, which is 1 from an
    episode's first success on.

    On the CPU the instances are as many simulations, stepped in turn in this process; see `hosts.parallel`. Tasks
    that rebuild their scene at every start of an episode there (PegInsertionSide) can be kept from it with
    `reconfiguration_freq=0`. ManiSkill wants a rendering device even where nothing is rendered.

    Args:
        name: of a registered task, e.g. `"PickCube-v1"`; see `maniskill_names`.
        n: instances; `make_host_train` makes as many as it needs.
        success: what a success does. `"truncate"` cuts the episode there, and its last state still has a value, as
            in the paper's own training; with `"terminate"` it has none, as ManiSkill's flags say it: dense rewards
            then pay for staying just short of it; with `"continue"` the episode goes on to its time limit, and
            success is a metric. A failure always terminates.
        episode_length: steps until the time limit; if not given, that of the task's registration.
        reward_mode: `"normalized_dense"`, `"dense"`, `"sparse"` or `"none"`, as far as the task has them.
        sim_backend: `"physx_cpu"`, or `"physx_cuda"` (`"physx_cuda:1"`), where all instances are one simulation.
        **options: of the task, e.g. `control_mode`, `robot_uids`, `sim_config`, `render_backend`.

    Returns:
        The environment.

    Raises:
        ImportError: if ManiSkill or PyTorch is not installed, or Python is newer than they are.
        ValueError: for an unknown name, with near ones; a value that is not allowed; a task that needs files which
            are not on this machine; a machine without a rendering device.
    """
    _check(n, success, episode_length, sim_backend, options)
    installed = package()
    spec = registered().get(name)
    if spec is None:
        raise unknown_name("ManiSkill task", name, registered())
    modes = tuple(spec.cls.SUPPORTED_REWARD_MODES)
    if reward_mode not in modes:
        raise ValueError(f"reward_mode is {reward_mode!r}, but {name} has {_listed(modes)}.")
    length = spec.max_episode_steps if episode_length is None else episode_length
    given = {"reward_mode": reward_mode, "sim_backend": sim_backend, **options}
    return ManiSkill(Task(name, spec, installed, success, length, given), n)


def maniskill_names() -> tuple[str, ...]:
    """Every task that the installed ManiSkill registers, also those that need a download first.

    Returns:
        The names, in alphabetical order.

    Raises:
        ImportError: if it is not installed.
    """
    package()
    return tuple(sorted(registered()))


class _Told(NamedTuple):
    """What all simulations say after one step, in arrays of our own."""

    observation: NDArray[Any]
    reward: NDArray[Any]
    terminated: NDArray[Any]
    truncated: NDArray[Any]
    numbers: dict[str, NDArray[Any]]


class ManiSkill(Restarting):
    """See `maniskill`. The simulation of the first instance is made at once, the others at the first `reset`."""

    def __init__(self, task: Task, n: int) -> None:
        self._task, self.name, self.num_envs = task, task.name, n
        self.episode_length = task.episode_length
        # On CUDA one simulation has all instances; ManiSkill's physics on the CPU has one in each.
        self._each = n if task.options["sim_backend"].startswith("physx_cuda") else 1
        self._simulations: list[Simulation] = [built(task, self._each)]
        try:
            self._read_facts(self._simulations[0])
        except BaseException:
            self.close()
            raise
        self._age, self._once = np.zeros(n, int), np.zeros(n, bool)
        self._seed(0)

    def _read_facts(self, simulation: Simulation) -> None:
        rebuilt = getattr(simulation, "reconfiguration_freq", 0)
        if self._each > 1 and rebuilt:
            raise ValueError(
                f"{self.name} rebuilds its scene (reconfiguration_freq is {rebuilt}), which cannot be done for "
                "single instances of one simulation; give reconfiguration_freq=0."
            )
        self._range = read_box(self.name, simulation.single_action_space)
        self.action_size, self.action_bounds = self._range.size, self._range.bounds
        self.action_seconds = seconds_of(simulation, "control_timestep")
        observation, info = _first_step(self._task, simulation, self._range, self._each)
        reader = make_reader(self.name, observation)
        self._read, self.observation = reader.read, reader.observation
        self._start = np.zeros((self.num_envs, *observation.shape[1:]), observation.dtype)
        found = tuple(numbers(info, self._each, BOOKKEEPING))
        # Some tasks have a `success_once` that is not what it says.
        once = ("success_once",) if "success" in found else ()
        self.metrics = tuple(dict.fromkeys((*found, *once)))

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        while len(self._simulations) * self._each < self.num_envs:
            self._simulations.append(built(self._task, self._each, quiet=bool(self._simulations)))
        if seed is not None:
            self._seed(seed)
        return self.restart(np.ones(self.num_envs, bool))

    def restart(self, which: Bool[np.ndarray, " n"]) -> PyTree[NDArray[Any]]:
        self._age, self._once = np.where(which, 0, self._age), self._once & ~which
        found = self._start.copy()
        for index, simulation in enumerate(self._simulations):
            rows = slice(index * self._each, (index + 1) * self._each)
            if not which[rows].any():
                continue
            # Without a seed a start would come from torch's own random numbers, which all simulations share. One
            # simulation of many instances draws from its first seed, whichever are started: all seeds are new.
            seeds = self._generators[index].integers(2**31, size=self._each).tolist()
            observation, _ = simulation.reset(seed=seeds, options=_chosen(simulation, which[rows]))
            found[rows] = _array(observation)
        return self._read(found)

    def advance(self, action: Float[np.ndarray, "n d"]) -> HostTimeStep:
        told = self._told(self._range(action))
        self._age = self._age + 1
        success, fail = told.numbers["success"] != 0, told.numbers["fail"] != 0
        self._once = self._once | success
        # ManiSkill's own flag includes success.
        terminated, truncated = fail | (told.terminated & ~success), told.truncated
        if self._task.success == "terminate":
            terminated = terminated | success
        elif self._task.success == "truncate":
            truncated = truncated | success
        if self.episode_length is not None:
            truncated = truncated | (self._age >= self.episode_length)
        metrics = {key: told.numbers[key] for key in self.metrics}
        if "success" in metrics:
            metrics["success_once"] = self._once.astype(metrics["success"].dtype)
        read = self._read(told.observation)
        return HostTimeStep(read, read, told.reward, terminated, truncated, metrics)

    def sized(self, num_envs: int) -> ManiSkill:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; at least 1 instance is needed.")
        return ManiSkill(self._task, num_envs)

    def close(self) -> None:
        for simulation in self._simulations:
            simulation.close()
        self._simulations = []

    def _seed(self, seed: int) -> None:
        """Random numbers of its own for every simulation, whenever the others start."""
        sequences = np.random.SeedSequence(seed).spawn(self.num_envs // self._each)
        self._generators = [np.random.default_rng(sequence) for sequence in sequences]

    def _told(self, action: NDArray[Any]) -> _Told:
        rows = action.reshape(-1, self._each, *action.shape[1:])
        told = [s.step(row) for s, row in zip(self._simulations, rows, strict=True)]
        observation, reward, terminated, truncated, infos = zip(*told, strict=True)
        names, nothing = (*self.metrics, "success", "fail"), np.zeros(self._each)
        found = {name: _joined([info.get(name, nothing) for info in infos]) for name in names}
        return _Told(
            _joined(observation),
            _joined(reward).reshape(-1),
            _joined(terminated).reshape(-1) != 0,
            _joined(truncated).reshape(-1) != 0,
            columns(found, names, self.num_envs),
        )


def _first_step(
    task: Task, simulation: Simulation, rescale: ActionRange, each: int
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """An observation and all that `info` says: some numbers come with the reward, not with a start."""
    try:
        observation, *_, info = simulation.step(rescale(np.zeros((each, rescale.size))))
    except NotImplementedError as error:
        mode = task.options["reward_mode"]
        others = [other for other in task.spec.cls.SUPPORTED_REWARD_MODES if other != mode]
        raise ValueError(
            f"reward_mode is {mode!r}, but {task.name} does not implement it; try {_listed(others)}."
        ) from error
    return _array(observation), {k: _array(v) for k, v in info.items() if hasattr(v, "dtype")}


def _chosen(simulation: Simulation, which: NDArray[Any]) -> dict[str, Any]:
    """The option by which instances of one simulation are chosen, as a tensor of its own device."""
    if which.all():
        return {}
    torch = importlib.import_module("torch")
    return {"env_idx": torch.as_tensor(np.flatnonzero(which), device=simulation.device)}


def _array(value: Any) -> NDArray[Any]:
    """With a first axis; a tensor's own memory, which the next step writes to."""
    return np.atleast_1d(as_array(value))


def _joined(values: Sequence[Any]) -> NDArray[Any]:
    """What the simulations say, one after another, in new memory."""
    return np.concatenate([_array(value) for value in values])


def _check(
    n: int, success: str, episode_length: int | None, sim_backend: str, options: Mapping[str, Any]
) -> None:
    if n < 1:
        raise ValueError(f"n is {n}; at least 1 instance is needed.")
    if success not in get_args(Success):
        raise ValueError(f"success is {success!r}; it must be {_listed(get_args(Success))}.")
    if episode_length is not None and episode_length < 1:
        raise ValueError(f"episode_length is {episode_length}; an episode needs at least 1 step.")
    if not BACKEND.fullmatch(sim_backend):
        raise ValueError(
            f"sim_backend is {sim_backend!r}; it must be 'physx_cpu' or 'physx_cuda' (or one device of several, "
            "'physx_cuda:1')."
        )
    for key in options.keys() & OURS.keys():
        raise ValueError(f"{key} is {options[key]!r}, but it is not to be set here: {OURS[key]}.")


def _listed(values: Any) -> str:
    return " or ".join(map(repr, values)) or "none"
