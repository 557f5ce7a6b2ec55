"""`reppo-fx render` and `train --video`: what can be typed, and what they do."""

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from .display import Returns, best_first, print_line
from .plain import shell_word
from .plan import Plan
from .render import HTML, VIDEO, Video, render
from .video import check_encoder


@dataclasses.dataclass(frozen=True)
class Render:
    """Make a video of a run's policy, as fast as the task is, with the return so far in the picture.

    Tasks of MuJoCo Playground, Brax, EnvPool and gymnasium; no screen is needed. Needs the extra `video`.
    """

    run: tyro.conf.Positional[Path]
    """A run's folder, e.g. runs/CartpoleBalance."""
    out: Path | None = None
    """The file, .mp4 or .gif, or .html for Brax's own viewer; video.mp4 in the run's folder if not given. One that
    is there is replaced."""
    best: tyro.conf.FlagCreatePairsOff[bool] = False
    """The policy of the best evaluation instead of the last."""
    stochastic: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sample actions, as in training, instead of taking the most likely ones."""
    seed: int | None = None
    """Which of the run's seeds, from 0; the first if not given."""
    setting: int = 0
    """Which of a sweep's settings, as metrics.csv counts them."""
    grid: tyro.conf.FlagCreatePairsOff[bool] = False
    """All seeds of the setting, side by side."""
    episodes: int = 1
    """Episodes, one after the other."""
    camera: str | None = None
    """Name or number of a camera of the model, or free; its first if not given."""
    size: str | None = None
    """WIDTHxHEIGHT, of each picture in a grid; 480x360 if not given, 320x240 in a grid."""
    fps: float | None = None
    """Frames per second; if not given, every step is one, or every second, third, ... so that there are at most 60
    (25 in a gif). Things move as fast with any."""
    seconds: float | None = None
    """Film no more than that of an episode."""
    caption: tyro.conf.FlagCreatePairsOff[bool] = True
    """Write the return into the picture."""
    start: int = 0
    """Seed of the episodes' starts, and of the actions where they are sampled."""


def run_render(arguments: Render, console: Console) -> int:
    """Film, and say where the video is."""
    wanted = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments)}
    folder, out, size = wanted.pop("run"), wanted.pop("out"), wanted.pop("size")
    file = folder / VIDEO if out is None and folder.is_dir() else out
    video = render(folder, file, size=parse_size(size), **wanted)
    _say(video, console)
    return 0


def parse_size(text: str | None) -> tuple[int, int] | None:
    """What `--size` says.

    Raises:
        ValueError: for a text of another form.

    >>> parse_size("320x240")
    (320, 240)
    """
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ValueError(f"size is {text!r}; it must be WIDTHxHEIGHT, e.g. 480x360.")
    return int(width), int(height)


def leave_video(plan: Plan, folder: Path, returns: Returns, console: Console) -> None:
    """What `train --video` leaves: all seeds of the setting that is best at the end. Never fails."""
    try:
        setting = best_first(returns)[0] if plan.grid else 0
        _say(render(folder, folder / VIDEO, grid=plan.num_seeds > 1, setting=setting), console)
    except Exception as error:  # the run is done, whatever a renderer does
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
        print_line(console, f"No video: {said}.", style="yellow")


def check_video() -> None:
    """Before anything is trained: whether `--video` can be had.

    Raises:
        ImportError: naming the extra.
    """
    check_encoder()


def _say(video: Video, console: Console) -> None:
    path = shell_word(str(video.path), console.encoding)
    returns = ", ".join(
        f"seed {seed} {' '.join(f'{value:.1f}' for value in row)}"
        for (_, seed), row in zip(video.members, video.returns, strict=True)
    )
    what = "The viewer" if video.path is not None and video.path.suffix == HTML else "The video"
    print_line(
        console,
        f"{what} is in {path}: {video.seconds:.1f} s at {video.fps:.4g} frames per second; return: {returns}",
    )
