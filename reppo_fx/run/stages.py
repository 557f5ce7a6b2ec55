"""Where policies are watched: the worlds that can show themselves, and one episode of several members in each."""

from __future__ import annotations

import abc
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import NDArray

from .. import envs, hosts
from .._errors import nearest
from ..hosts.evaluate import LARGEST_SEED
from ..hosts.evaluate import evaluate_policy as evaluate_in_simulator
from ..hosts.wrapper import Wrapper
from ..training.evaluate import evaluate_policy
from ..training.policy import Policy
from .headless import attempt, use_headless_gl
from .video import Film, Picture

FREE = "free"
"""The camera of the viewer, which belongs to no model."""
DEFAULT_SIZE = (480, 360)
# gymnasium's own tasks draw by pygame, which looks for a screen and for loudspeakers, and says hello.
SDL = (
    ("SDL_VIDEODRIVER", "dummy"),
    ("SDL_AUDIODRIVER", "dummy"),
    ("PYGAME_HIDE_SUPPORT_PROMPT", "1"),
)
# What an EnvPool task shows is tried elsewhere first: where it cannot draw, it ends the process.
_TRY_ENVPOOL = """
import contextlib, ctypes, sys, warnings
warnings.simplefilter("ignore")
with contextlib.suppress(OSError):
    ctypes.CDLL("libEGL.so.1", mode=ctypes.RTLD_GLOBAL)
import envpool
task, width, height, *cameras = sys.argv[1:]
pool = envpool.make_gymnasium(
    task, num_envs=1, render_mode="rgb_array", render_width=int(width), render_height=int(height)
)
pool.reset()
for camera in cameras:
    try:
        pool.render(0, int(camera))
    except IndexError:
        continue
    print(camera)
    break
else:
    raise SystemExit(f"it has no camera {cameras[0]}")
"""


class Watching(NamedTuple):
    """How policies are watched.

    Attributes:
        length: steps of an episode, at most.
        start: seed of the starts and of sampled actions.
        stochastic: sample actions.
        limit: magnitude beyond which a number is a failure of the simulator.
    """

    length: int
    start: int
    stochastic: bool
    limit: float


class Stage(abc.ABC):
    """A world that can be seen.

    Attributes:
        seconds: simulated, per action; none if the world does not say.
    """

    seconds: float | None = None

    @abc.abstractmethod
    def play(self, policies: Policy, episodes: int, how: Watching, film: Film) -> NDArray[Any]:
        """Film episodes of all members; their returns `[members, episodes]`."""


def open_stage(
    task: str, members: int, length: int, size: tuple[int, int] | None, camera: str | None
) -> Stage:
    """The stage of a task by name.

    Args:
        task: as `reppo-fx train` takes it.
        members: how many play at once.
        length: steps of an episode.
        size: width and height of a picture; the stage's own if not given.
        camera: name or number; the model's first if not given.

    Raises:
        ValueError: if the task cannot be seen, nothing can be drawn here, or there is no such camera.
        ImportError: if what the task needs is not installed.
    """
    if hosts.is_host_task(task):
        options = _host_options(task, size or DEFAULT_SIZE, camera)
        return HostStage(hosts.make(task, episode_length=length, **options).sized(members))
    return PureStage(task, size or DEFAULT_SIZE, camera)


class PureStage(Stage):
    """A task of Playground or Brax: its states, drawn by MuJoCo."""

    def __init__(self, task: str, size: tuple[int, int], camera: str | None) -> None:
        family, name = envs.find_family(task)
        if family.load is None:
            raise _unseen(task)
        self.task, self.family, self.built = task, family.extra, family.load(name)
        self.env = family.adapter(self.built)
        self.seconds = self.env.action_seconds
        self._size, self._camera = size, camera

    def play(self, policies: Policy, episodes: int, how: Watching, film: Film) -> NDArray[Any]:
        model = self._model()
        drawing = Drawing(model, self._size, self._camera)
        rows = self._episodes(policies, episodes, how, self._pose)
        poses, rewards, alive = rows.poses, rows.rewards, rows.alive
        # [members, T, episodes]
        returns = np.cumsum(np.where(alive, rewards, 0.0), axis=1)
        with drawing:
            for episode in range(episodes):
                film.begin(f", episode {episode + 1}" if episodes > 1 else "")
                for step in range(how.length):
                    going = alive[:, step, episode]
                    if not going.any():
                        break

                    def picture(member: int, where: tuple[int, int] = (step, episode)) -> Picture:
                        return drawing({k: v[(member, *where)] for k, v in poses.items()})

                    film.show(film.draw(going, picture), returns[:, step, episode])
        return np.asarray(returns[:, -1])

    def states(self, policy: Policy, how: Watching) -> tuple[PyTree, float, int]:
        """One episode's own states `[T]`, its return and its length; Brax's viewer wants all of them."""
        one: Policy = jax.tree.map(lambda leaf: leaf[None], policy)
        rows = self._episodes(one, 1, how, lambda state: {"": state.pipeline_state})
        alive = rows.alive[0, :, 0]
        states = jax.tree.map(lambda leaf: leaf[0, :, 0], rows.poses[""])
        return states, float(np.where(alive, rows.rewards[0, :, 0], 0.0).sum()), int(alive.sum())

    def _episodes(
        self,
        policies: Policy,
        episodes: int,
        how: Watching,
        pose: Callable[[Any], dict[str, PyTree[Array]]],
    ) -> _Rows:
        """`[members, T, episodes]`. The keys are those of `reppo-fx eval`, and so are the returns."""

        @jax.jit
        def run(policies: Policy, key: Array) -> _Rows:
            def one(policy: Policy) -> _Rows:
                rows = evaluate_policy(
                    self.env,
                    policy,
                    key,
                    episodes,
                    how.length,
                    stochastic=how.stochastic,
                    trajectory=True,
                    limit=how.limit,
                ).trajectory
                assert rows is not None
                return _Rows(pose(rows.state), rows.reward, rows.alive)

            return jax.vmap(one)(policies)

        rows: _Rows = jax.tree.map(np.asarray, run(policies, jax.random.key(how.start)))
        return rows

    def _pose(self, state: Any) -> dict[str, PyTree[Array]]:
        """What a picture shows, of the task's own state."""
        if self.family == "brax":
            return {"qpos": state.pipeline_state.q, "qvel": state.pipeline_state.qd}
        names = ("qpos", "qvel", "mocap_pos", "mocap_quat")
        return {name: getattr(state.data, name) for name in names}

    def _model(self) -> Any:
        bare: Any = getattr(self.built, "unwrapped", self.built)
        owner = getattr(bare, "sys", None) if self.family == "brax" else bare
        model = getattr(owner, "mj_model", None)
        if model is None:
            raise ValueError(f"{self.task} has no MuJoCo model to draw.")
        return model


class _Rows(NamedTuple):
    poses: dict[str, Any]
    rewards: Any
    alive: Any


class Drawing:
    """A MuJoCo model, drawn without a screen."""

    def __init__(self, model: Any, size: tuple[int, int], camera: str | None) -> None:
        use_headless_gl()
        import mujoco

        width, height = size
        # As large as asked for, and not only as its author thought of.
        model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(height, model.vis.global_.offheight)
        self._camera, self._forward = _camera(model, camera), mujoco.mj_forward
        self._model, self._data = model, mujoco.MjData(model)
        self._renderer = mujoco.Renderer(model, height, width)

    def __call__(self, pose: Mapping[str, NDArray[Any]]) -> Picture:
        for name, value in pose.items():
            getattr(self._data, name)[:] = value
        self._forward(self._model, self._data)
        self._renderer.update_scene(self._data, camera=self._camera)
        seen: Picture = self._renderer.render().copy()
        return seen

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *error: object) -> None:
        self._renderer.close()


def _camera(model: Any, asked: str | None) -> int:
    """Of a MuJoCo model by name or number; else the first, through which its authors look
    (and which follows a robot that goes away), else the viewer's own."""
    names = [model.camera(number).name or str(number) for number in range(model.ncam)]
    if asked is None:
        return 0 if model.ncam else -1
    if asked == FREE:
        return -1
    if asked in names:
        return names.index(asked)
    if asked.isdigit() and int(asked) < model.ncam:
        return int(asked)
    close = nearest(asked, names)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
    known = ", ".join(repr(name) for name in [*names, FREE])
    raise ValueError(f"camera is {asked!r}, but the cameras here are {known}{hint}")


class HostStage(Stage):
    """A simulator that draws itself."""

    def __init__(self, env: hosts.HostEnvironment) -> None:
        self.env, self.seconds = env, env.action_seconds or env.picture_seconds

    def play(self, policies: Policy, episodes: int, how: Watching, film: Film) -> NDArray[Any]:
        returns = []
        with _Filmed(self.env, film) as filmed:
            # What cannot be drawn is no failure of the simulator: it is tried before it runs.
            self.env.reset(how.start & LARGEST_SEED)
            filmed.picture(0)
            for episode in range(episodes):
                film.begin(f", episode {episode + 1}" if episodes > 1 else "")
                start = how.start + episode
                played = evaluate_in_simulator(
                    filmed,
                    policies,
                    how.length,
                    seed=start & LARGEST_SEED,
                    key=jax.random.key(start) if how.stochastic else None,
                    limit=how.limit,
                )
                returns.append(np.ravel(played.returns))
        return np.stack(returns, axis=1)


class _Filmed(Wrapper):
    """Shows every instance before it is stepped, until its first end."""

    def __init__(self, env: hosts.HostEnvironment, film: Film) -> None:
        super().__init__(env)
        self._film = film

    def reset(self, seed: int | None = None) -> PyTree[NDArray[Any]]:
        self._alive = np.ones(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        return self.env.reset(seed)

    def step(self, action: Any) -> hosts.HostTimeStep:
        pictures = self._film.draw(self._alive, self.picture)
        timestep = self.env.step(action)
        self._returns = self._returns + np.where(self._alive, timestep.reward, 0.0)
        self._film.show(pictures, self._returns)
        self._alive = self._alive & ~timestep.ended
        return timestep

    def picture(self, instance: int) -> Picture:
        try:
            seen = np.asarray(self.env.picture(instance))
        except NotImplementedError:
            raise _unseen(self.name) from None
        except Exception as error:  # whatever a simulator of theirs lacks
            raise ValueError(f"{self.name} cannot be drawn here: {_line(error)}.") from error
        if seen.ndim != 3 or seen.shape[2] != 3 or seen.dtype != np.uint8:
            raise ValueError(f"{self.name} shows {seen.dtype} {seen.shape}, which is no picture.")
        return seen


def _host_options(task: str, size: tuple[int, int], camera: str | None) -> dict[str, Any]:
    """What a simulator is made with so that it can be seen."""
    family, _, name = task.partition(":")
    if family == "envpool":
        return _envpool_options(name, size, camera)
    if family == "gymnasium":
        return _gymnasium_options(name, size, camera)
    raise _unseen(task)


def _envpool_options(name: str, size: tuple[int, int], camera: str | None) -> dict[str, Any]:
    """Not every task has a first camera."""
    if name not in hosts.envpool_names():
        return {}  # which is said where it is made
    width, height = size
    if camera is not None and camera != FREE and not camera.isdigit():
        raise ValueError(
            f"camera is {camera!r}, but EnvPool knows cameras by their numbers only, from 0, and {FREE!r}."
        )
    tried = {None: ["0", "-1"], FREE: ["-1"]}.get(camera, [str(camera)])
    works, said = _tried((name, str(width), str(height), *tried))
    if not works:
        raise ValueError(f"envpool:{name} cannot be drawn here: {said.removesuffix('.')}.")
    return {
        "render_mode": "rgb_array",
        "render_width": width,
        "render_height": height,
        "render_camera_id": int(said),
    }


@functools.cache
def _tried(arguments: tuple[str, ...]) -> tuple[bool, str]:
    """Once for the same: it takes seconds."""
    return attempt(_TRY_ENVPOOL, arguments)


def _gymnasium_options(name: str, size: tuple[int, int], camera: str | None) -> dict[str, Any]:
    import gymnasium

    spec = gymnasium.registry.get(name)
    if spec is None:
        return {}  # which is said where it is made
    options: dict[str, Any] = {"render_mode": "rgb_array"}
    for variable in SDL:
        os.environ.setdefault(*variable)
    if not str(spec.entry_point).startswith("gymnasium.envs.mujoco"):
        if camera is not None:
            raise ValueError(f"camera is {camera!r}, but gymnasium:{name} has none to choose from.")
        return options
    use_headless_gl()
    with gymnasium.make(name) as env:
        chosen = _camera(getattr(env.unwrapped, "model", None), camera)
    return {**options, "width": size[0], "height": size[1], "camera_id": chosen}


def _unseen(task: str) -> ValueError:
    return ValueError(
        f"{task} cannot be shown: what can are tasks of MuJoCo Playground, Brax, EnvPool and gymnasium."
    )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).removesuffix(".")
