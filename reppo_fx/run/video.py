"""Pictures as a video: which steps of a task become frames, what is written on them, and the file."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import subprocess
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from .._errors import require_extra

Picture: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
SUFFIXES = (".mp4", ".gif")
# Most screens show no more; a gif counts hundredths of a second, and its size grows with every frame.
MOST_FRAMES, MOST_IN_GIF = 60, 25
FASTEST, FASTEST_GIF = 240, 50
# A palette for the whole video, and of every frame only what has changed.
_GIF = "[0:v]split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=none:diff_mode=rectangle"
# Plays everywhere, and begins before the whole file is there.
_MP4 = ["-c:v", "libx264", "-crf", "20", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
_MODULES = ("imageio_ffmpeg", "PIL.ImageDraw")


def check_encoder() -> None:
    """Raise a sentence if videos cannot be written here.

    Raises:
        ImportError: naming the extra.
    """
    for module in _MODULES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise require_extra(
                f"What writes videos ({module.partition('.')[0]})", "video"
            ) from error


class Clock(NamedTuple):
    """Which steps are shown, so that a video runs as fast as the task: frame k is what there is at k / fps.

    >>> clock = make_clock(0.01)
    >>> float(clock.fps), [clock.frames(step) for step in range(4)]
    (50.0, [1, 0, 1, 0])
    """

    steps_per_second: Fraction
    fps: Fraction

    def frames(self, step: int) -> int:
        """How many frames show the state before this step."""
        return self.total(step + 1) - self.total(step)

    def total(self, steps: int) -> int:
        """Frames of an episode."""
        return math.ceil(steps * self.fps / self.steps_per_second)


def make_clock(
    seconds: float | int | None, fps: float | int | None = None, gif: bool = False
) -> Clock:
    """Real time where the task says what a step takes, else a step a frame.

    Args:
        seconds: simulated, per action.
        fps: frames per second; as many as there are steps if not given, or the nearest part of them that is at most
            60 (in a gif: at most 25).
        gif: only rates that its hundredths of a second can hold.

    Raises:
        ValueError: if `fps` cannot be.

    >>> [float(make_clock(s).fps) for s in (0.025, 0.008, None)], float(make_clock(0.01, gif=True).fps)
    ([40.0, 41.666666666666664, 30.0], 25.0)
    """
    most = FASTEST_GIF if gif else FASTEST
    if fps is not None and not 1 <= fps <= most:
        what = "a gif" if gif else "a video"
        raise ValueError(f"fps is {fps:g}; {what} takes from 1 to {most} frames per second.")
    rate = Fraction(30 if seconds is None else 1 / seconds).limit_denominator(10_000)
    if seconds is None and fps is not None:
        rate = Fraction(fps).limit_denominator(1000)
    if fps is not None:
        chosen = Fraction(fps).limit_denominator(1000)
    else:
        chosen = rate / max(1, math.ceil(rate / (MOST_IN_GIF if gif else MOST_FRAMES)))
    if gif:
        chosen = Fraction(100, max(100 // FASTEST_GIF, round(100 / chosen)))
    return Clock(rate, chosen)


class Film:
    """Members side by side, each with its return so far, as frames in real time.

    Args:
        clock: which steps are shown.
        sink: what takes the frames.
        captions: of every member; none to write nothing.
        size: width and height of a member's picture; as it comes if not given.
    """

    def __init__(
        self,
        clock: Clock,
        sink: Callable[[Picture], None],
        captions: Sequence[str] | None,
        size: tuple[int, int] | None,
    ) -> None:
        self.clock, self._sink, self._captions, self._size = clock, sink, captions, size
        self.begin("")

    def begin(self, episode: str) -> None:
        """The next episode, and what is added to the captions."""
        self._step, self._episode = 0, episode
        self._last: dict[int, Picture] = {}

    def draw(self, alive: NDArray[Any], picture: Callable[[int], Picture]) -> dict[int, Picture]:
        """The pictures before a step, of those members whose episode goes on; none where no frame is due."""
        if not self.clock.frames(self._step):
            return {}
        return {i: picture(i) for i in map(int, np.flatnonzero(alive))}

    def show(self, pictures: dict[int, Picture], returns: NDArray[Any]) -> None:
        """What `draw` gave, and the returns with the step; who has ended stays as it was."""
        for member, picture in pictures.items():
            if self._size is not None:
                picture = resized(picture, self._size)
            if self._captions is not None:
                text = f"{self._captions[member]}{self._episode}: return {returns[member]:.1f}"
                picture = captioned(picture, text)
            self._last[member] = picture
        due = self.clock.frames(self._step)
        self._step += 1
        if due and self._last:
            frame = tiled([self._last[member] for member in sorted(self._last)])
            for _ in range(due):
                self._sink(frame)


def resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """Of that width and height."""
    from PIL import Image

    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size))


def captioned(picture: Picture, text: str) -> Picture:
    """With a line of text at the top left, as large as it fits."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    size = max(8.0, image.height / 20)
    width = pen.textlength(text, ImageFont.load_default(size))
    margin = size / 2
    size = max(6.0, min(size, size * (image.width - 2 * margin) / max(width, 1.0)))
    font = ImageFont.load_default(size)
    pen.text((margin, margin), text, "white", font, stroke_width=1, stroke_fill="black")
    return np.asarray(image)


def tiled(pictures: Sequence[Picture]) -> Picture:
    """Side by side; more than three in rows, nearly as many as columns."""
    columns = max(min(3, len(pictures)), math.ceil(math.sqrt(len(pictures))))
    rows = math.ceil(len(pictures) / columns)
    height, width, _ = pictures[0].shape
    frame = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        frame[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return frame


class Writer:
    """A video file, complete or not there: it gets its name when it is closed.

    The ffmpeg of imageio-ffmpeg encodes both mp4 and gif: one wheel without dependencies. (mediapy wants IPython
    and an ffmpeg from elsewhere; imageio's own writers hold all frames of a gif, and fork where jax has threads.)

    Args:
        path: ends in `.mp4` or `.gif`.
        fps: frames per second.
    """

    def __init__(self, path: Path, fps: Fraction) -> None:
        self.path, self.fps, self.count = path, fps, 0
        self._part = path.with_name(f".{path.stem}.part{path.suffix}")
        self._encoder: subprocess.Popen[bytes] | None = None

    def __call__(self, frame: Picture) -> None:
        if self.path.suffix == ".mp4":  # which has no odd sizes
            odd = [(0, length % 2) for length in frame.shape[:2]]
            frame = np.pad(frame, [*odd, (0, 0)], "edge")
        if self._encoder is None:
            self._encoder = self._start(frame.shape[1], frame.shape[0])
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(np.ascontiguousarray(frame).tobytes())
        except BrokenPipeError:
            self._end()
        self.count += 1

    def _start(self, width: int, height: int) -> subprocess.Popen[bytes]:
        import imageio_ffmpeg

        given = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            f"{width}x{height}",
            "-r",
            f"{self.fps}",
        ]
        wanted = ["-filter_complex", _GIF] if self.path.suffix == ".gif" else _MP4
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *given, "-i", "-"]
        # Ctrl-C is for this process, which then ends the other.
        return subprocess.Popen(
            [*command, *wanted, os.path.abspath(self._part)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0 if os.name == "posix" else None,
        )

    def _end(self) -> None:
        """Wait for the file.

        Raises:
            OSError: with what the encoder said, if there is none.
        """
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        _, said = encoder.communicate()
        if encoder.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else f"its encoder ended with {encoder.returncode}"
            raise OSError(f"{self.path} cannot be written: {why}")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is not None and self._encoder is not None:
                self._encoder.kill()
                with contextlib.suppress(OSError):
                    self._end()
            self._end()
            if kind is None and self.count:
                self._part.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink()
