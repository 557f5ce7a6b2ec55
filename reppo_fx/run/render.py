"""A video of what a run has learned."""

from __future__ import annotations

import base64
import dataclasses
import math
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ..training.policy import Policy
from .durable import write_whole
from .plan import LARGEST_SEED, Plan, label_text
from .policies import load_policies, member_of
from .records import read_config
from .stages import PureStage, Stage, Watching, open_stage
from .video import SUFFIXES, Film, Picture, Writer, check_encoder, make_clock

HTML, VIDEO = ".html", "video.mp4"
LARGEST, SMALLEST = 4096, 16
IN_A_GRID = (320, 240)


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
    """What was filmed; a notebook shows it.

    Attributes:
        path: the file; none if none was written.
        frames: `[frames, height, width, 3]`; none if they were not kept.
        fps: frames per second.
        count: of frames.
        returns: of every member and episode, `[members, episodes]`.
        members: settings and seeds of the members, in that order.
    """

    path: Path | None
    frames: NDArray[np.uint8] | None
    fps: float
    count: int
    returns: NDArray[Any]
    members: tuple[tuple[int, int], ...]

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.count / self.fps

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return (
            f"Video({where}: {self.seconds:.1f} s at {self.fps:g} frames per second, "
            f"return {self.returns.mean():.1f})"
        )

    def _repr_html_(self) -> str:
        """For notebooks, the video itself."""
        path = self.path
        if path is not None and path.suffix == HTML:
            return path.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            if path is None:
                path = Path(folder) / "video.mp4"
                with Writer(path, make_clock(1 / self.fps, self.fps).fps) as write:
                    for frame in self.frames if self.frames is not None else ():
                        write(frame)
            data = base64.b64encode(path.read_bytes()).decode()
        if path.suffix == ".gif":
            return f'<img src="data:image/gif;base64,{data}">'
        return f'<video controls loop autoplay muted src="data:video/mp4;base64,{data}"></video>'


def render(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    best: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    setting: int = 0,
    grid: bool = False,
    episodes: int = 1,
    camera: str | int | None = None,
    size: tuple[int, int] | None = None,
    fps: float | int | None = None,
    seconds: float | int | None = None,
    caption: bool = True,
    start: int = 0,
    keep_frames: bool | None = None,
) -> Video:
    """Film the policies of a run, as fast as the task is, with the return so far in the picture.

    Args:
        folder: of the run.
        out: a file to write: `.mp4`, `.gif`, or `.html` (Brax's own viewer, for a Brax environment; it fetches its
            program from the network). One that is there is replaced.
        best: the policy at its best evaluation instead of the last one.
        stochastic: sample actions, as in training.
        seed: which of the run's seeds, from 0; the first if not given.
        setting: which of a sweep's settings, as `metrics.csv` counts them.
        grid: all seeds of the setting, side by side.
        episodes: one after the other.
        camera: name or number of a camera of the model, or `"free"`; its first if not given.
        size: width and height, of each picture in a grid; 480 × 360 if not given, 320 × 240 in a grid. Worlds that
            choose their size themselves are resized where it is given.
        fps: frames per second; by default every step is one, or every second, third, … so that there are at most 60
            (25 in a gif). It does not change how fast things move.
        seconds: film no more than that of an episode.
        caption: write the return into the picture.
        start: seed of the episodes' starts and of sampled actions; the first episode is that of `reppo-fx eval
            --seed`.
        keep_frames: give the frames, too; by default where nothing is written.

    Returns:
        The video.

    Raises:
        ValueError: for a folder without a run, a number that cannot be, a task that cannot be shown, a camera that
            is not there, or a machine that cannot draw.
        ImportError: without the extra `video`, or what the task needs.

    >>> # video = render("runs/CartpoleBalance", "cartpole.gif", best=True)
    """
    folder, file = Path(folder), None if out is None else Path(out)
    _check_numbers(episodes, size, seconds, start)
    html = file is not None and _check_file(file) == HTML
    if html:
        _check_html(grid, episodes, camera, size)
    else:
        check_encoder()
    description = read_config(folder)
    plan = Plan.from_json(description)
    members = _members(plan, seed, setting, grid)
    policies = _choose(load_policies(folder, best), plan, members)
    length = int(description["environment"]["episode_length"])
    drawn = size or (IN_A_GRID if grid else None)
    asked = None if camera is None else str(camera)
    stage = open_stage(plan.task, len(members), length, drawn, asked)
    if seconds is not None and stage.seconds is not None:
        length = min(length, max(1, math.ceil(seconds / stage.seconds)))
    limit = plan.config.observation_limit
    how = Watching(length, start, stochastic, limit)
    if file is not None and html:
        return _write_html(file, stage, policies, how, fps, members)
    captions = [_caption(plan, member, grid) for member in members] if caption else None
    clock = make_clock(stage.seconds, fps, gif=file is not None and file.suffix == ".gif")
    keep = file is None if keep_frames is None else keep_frames
    with _Reel(file, clock.fps, keep) as reel:
        returns = stage.play(policies, episodes, how, Film(clock, reel, captions, size))
    return Video(file, reel.frames(), float(clock.fps), reel.count, returns, members)


class _Reel:
    """Takes frames: into a file, into memory, or both."""

    def __init__(self, file: Path | None, fps: Fraction, keep: bool) -> None:
        self.count = 0
        self._kept: list[Picture] | None = [] if keep else None
        self._writer = None if file is None else Writer(file, fps)

    def __call__(self, frame: Picture) -> None:
        self.count += 1
        if self._kept is not None:
            self._kept.append(frame)
        if self._writer is not None:
            self._writer(frame)

    def frames(self) -> NDArray[np.uint8] | None:
        """All of them, if they were kept."""
        return None if self._kept is None else np.stack(self._kept)

    def __enter__(self) -> _Reel:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, *rest)


def _write_html(
    file: Path,
    stage: Stage,
    policies: Policy,
    how: Watching,
    fps: float | int | None,
    members: tuple[tuple[int, int], ...],
) -> Video:
    """Brax's own viewer, with all states in it."""
    if not isinstance(stage, PureStage) or stage.family != "brax":
        raise ValueError(
            f"out is {str(file)!r}, but only Brax environments have a viewer in {HTML}; give .mp4 or .gif."
        )
    from brax.io import html

    clock = make_clock(stage.seconds, fps)
    policy: Policy = jax.tree.map(lambda leaf: leaf[0], policies)
    states, total, length = stage.states(policy, how)
    shown = [step for step in range(length) for _ in range(clock.frames(step))]
    rows = [jax.tree.map(lambda leaf, step=step: leaf[step], states) for step in shown]
    built: Any = stage.built
    system = built.unwrapped.sys.tree_replace({"opt.timestep": float(1 / clock.fps)})
    write_whole(file, html.render(system, rows).encode())
    return Video(file, None, float(clock.fps), len(shown), np.array([[total]]), members)


def _check_numbers(
    episodes: int, size: tuple[int, int] | None, seconds: float | int | None, start: int
) -> None:
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; at least 1 is needed.")
    if seconds is not None and not seconds > 0:
        raise ValueError(f"seconds is {seconds:g}; it must be positive.")
    if not 0 <= start <= LARGEST_SEED:
        raise ValueError(f"start is {start}; it must be from 0 to {LARGEST_SEED}.")
    if size is not None and not all(SMALLEST <= length <= LARGEST for length in size):
        raise ValueError(
            f"size is {size[0]}x{size[1]}; width and height must be from {SMALLEST} to {LARGEST}."
        )


def _check_file(file: Path) -> str:
    """How its name ends."""
    known = (*SUFFIXES, HTML)
    if file.suffix not in known:
        raise ValueError(f"out is {str(file)!r}; its name must end in {', '.join(known)}.")
    if file.is_dir():
        raise ValueError(f"out is {str(file)!r}, which is a folder.")
    if not file.parent.is_dir():
        raise ValueError(f"out is {str(file)!r}, but there is no folder {str(file.parent)!r}.")
    if not os.access(file.parent, os.W_OK):
        raise ValueError(f"out is {str(file)!r}, but its folder cannot be written.")
    return file.suffix


def _check_html(
    grid: bool, episodes: int, camera: str | int | None, size: tuple[int, int] | None
) -> None:
    given = {
        "grid": grid,
        "episodes": episodes > 1,
        "camera": camera is not None,
        "size": size is not None,
    }
    for name, is_given in given.items():
        if is_given:
            raise ValueError(
                f"{name} is for .mp4 and .gif; {HTML} shows one episode of one policy, in its reader's own view."
            )


def _members(plan: Plan, seed: int | None, setting: int, grid: bool) -> tuple[tuple[int, int], ...]:
    """Settings and seeds of who is filmed."""
    if grid and seed is not None:
        raise ValueError(f"seed is {seed}, but a grid shows all seeds; leave one of them out.")
    member_of(plan, seed or 0, setting)
    seeds = range(plan.num_seeds) if grid else (seed or 0,)
    return tuple((setting, one) for one in seeds)


def _choose(policies: Policy, plan: Plan, members: tuple[tuple[int, int], ...]) -> Policy:
    which = np.array([member_of(plan, seed, setting) for setting, seed in members])
    chosen: Policy = jax.tree.map(lambda leaf: leaf[which], policies)
    return chosen


def _caption(plan: Plan, member: tuple[int, int], grid: bool) -> str:
    setting, seed = member
    label = label_text(plan.labels[setting])
    parts = [] if grid else [plan.task, *([label] if label else [])]
    return ", ".join([*parts, f"seed {seed}"])
