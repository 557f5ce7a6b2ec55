"""Videos: decoded again, from policies on real tasks; and what is said where there can be none."""

import dataclasses
import os
import re
import sys

import imageio_ffmpeg
import jax
import numpy as np
import pytest

from reppo_fx.run import cli, headless, load_policies, render, render_verb, stages, video, worlds
from reppo_fx.run.plan import Plan
from reppo_fx.run.policies import save_policies
from reppo_fx.run.records import describe_run, write_config
from reppo_fx.training.presets import preset

from .test_run import TINY
from .test_sentences import answer

PENDULUM = "gymnasium:InvertedPendulum-v5"
SECONDS = 0.04  # of an action there


def decode(path):
    """Frames, and frames per second."""
    reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    meta = next(reader)
    width, height = meta["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.stack(frames), meta["fps"]


def differ(first, second):
    return bool((np.abs(first.astype(int) - second.astype(int)) > 40).any())


@pytest.fixture(scope="module", autouse=True)
def drawing():
    """Whether this machine can draw; what is said where none can is tested below."""
    os.environ["IMAGEIO_FFMPEG_NO_PREVENT_SIGINT"] = (
        "1"  # else it forks to read, which jax warns of
    )
    try:
        headless.use_headless_gl()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of three seeds that has left a video."""
    out = tmp_path_factory.mktemp("runs") / "run"
    command = ["train", PENDULUM, *TINY, "--seeds", "3", "--out", str(out), "--video"]
    assert cli.main(command) == 0
    return out


def untrained(folder, task, num_seeds=1, **changes):
    """A run of policies that have learned nothing."""
    config, hyperparameters = preset("cpu")
    config = dataclasses.replace(config, actor_width=8, critic_width=8, **changes)
    plan = Plan(task, "cpu", config, hyperparameters, num_seeds=num_seeds)
    train = worlds.bind(task, config)
    write_config(folder, describe_run(train, plan))
    init = train.init if hasattr(train, "init_shapes") else jax.jit(jax.vmap(train.init))
    save_policies(folder, train, init(*plan.members()))
    if hasattr(train, "close"):
        train.close()
    return folder


def test_train_leaves_a_video_of_all_seeds(trained):
    frames, fps = decode(trained / "video.mp4")
    assert frames.shape[1:] == (240, 3 * 320, 3)
    assert fps == 1 / SECONDS
    tiles = np.split(frames, 3, axis=2)
    assert all(differ(tile[0], tile[-1]) for tile in tiles)
    assert {p.name for p in trained.iterdir() if "part" in p.name} == set()


def test_a_video_is_as_long_as_its_episodes_and_their_returns_are_those_of_eval(trained, capsys):
    capsys.readouterr()
    assert cli.main(["eval", str(trained), "--episodes", "1", "--seed", "3"]) == 0
    printed = re.findall(r"seed \d: return ([\d.]+)", capsys.readouterr().out)
    shown = render(trained, grid=True, start=3, size=(64, 48))
    assert [f"{value:.1f}" for value in shown.returns[:, 0]] == printed
    # A step pays 1, but for the one that ends it.
    assert shown.count == len(shown.frames) == shown.returns.max() + 1
    assert shown.frames.shape[1:] == (48, 3 * 64, 3)
    assert shown.seconds == pytest.approx(shown.count * SECONDS)
    shortest = int(shown.returns[:, 0].argmin())
    tile = shown.frames[:, :, 64 * shortest : 64 * (shortest + 1)]
    ended = int(shown.returns.min())
    np.testing.assert_array_equal(tile[ended], tile[-1])  # stays as it was
    assert differ(tile[0], tile[ended])
    assert shown.members == ((0, 0), (0, 1), (0, 2))


def test_a_gif_of_several_episodes_with_and_without_its_caption(trained):
    plain = trained / "plain.gif"
    arguments = ["--size", "120x91", "--episodes", "2", "--seed", "1", "--best", "--stochastic"]
    assert cli.main(["render", str(trained), *arguments, "--no-caption", "--out", str(plain)]) == 0
    frames, fps = decode(plain)
    assert plain.read_bytes().startswith(b"GIF8")
    assert (fps, frames.shape[1:]) == (25.0, (91, 120, 3))
    with_text = render(
        trained, best=True, stochastic=True, seed=1, episodes=2, size=(120, 91), fps=25
    )
    assert len(with_text.frames) == len(frames) == with_text.returns.sum() + 2
    assert differ(frames[0], frames[int(with_text.returns[0, 0])])
    # What is written is in the picture's upper sixth.
    gap = np.abs(with_text.frames[0].astype(int) - frames[0].astype(int)).max((1, 2))
    assert gap[:15].max() > 150
    assert gap[20:].max() < 60
    assert with_text._repr_html_().startswith("<video controls")


def test_another_rate_shows_the_same_time(trained):
    whole, halved, twice = (render(trained, size=(32, 32), fps=fps) for fps in (None, 12.5, 50))
    np.testing.assert_array_equal(whole.frames[::2], halved.frames)
    np.testing.assert_array_equal(whole.frames.repeat(2, 0), twice.frames)
    short = render(trained, size=(33, 31), seconds=3 * SECONDS, out=trained / "odd.mp4")
    assert (short.frames, short.count) == (None, 3)
    frames, _ = decode(short.path)
    assert frames.shape == (3, 32, 34, 3)  # mp4 has even sizes only


def test_a_task_faster_than_screens_is_shown_in_part():
    clock = video.make_clock(0.008)
    assert float(clock.fps) == pytest.approx(125 / 3)
    assert clock.total(1000) == sum(map(clock.frames, range(1000))) == 334
    assert float(video.make_clock(0.02, 30, gif=True).fps) == pytest.approx(100 / 3)


def test_envpool_shows_itself_and_says_how_long_an_action_takes(tmp_path, monkeypatch):
    folder = untrained(tmp_path, "envpool:CheetahRun-v1", num_seeds=2, num_envs=4)
    assert cli.main(["render", str(folder), "--grid", "--seconds", "0.2", "--size", "96x64"]) == 0
    frames, fps = decode(folder / "video.mp4")
    assert (fps, frames.shape) == (50.0, (10, 64, 192, 3))
    assert differ(frames[0], frames[-1])
    assert differ(frames[-1][:, :96], frames[-1][:, 96:])
    with pytest.raises(ValueError, match="'side', but EnvPool knows cameras by their numbers"):
        render(folder, camera="side")
    tried = []
    monkeypatch.setattr(
        stages, "attempt", lambda *what: tried.append(what) or (False, "no camera.")
    )
    with pytest.raises(ValueError, match=r"CheetahRun-v1 cannot be drawn here: no camera\."):
        render(folder, camera=7)
    assert tried[0][1][-1] == "7"


def test_gymnasium_draws_its_classic_tasks_and_says_what_is_missing(tmp_path, monkeypatch):
    folder = untrained(tmp_path, "gymnasium:CartPole-v1", num_envs=4)
    shown = render(folder, size=(90, 60), caption=False, start=2)
    assert shown.frames.shape == (shown.returns[0, 0], 60, 90, 3)
    assert differ(shown.frames[0], shown.frames[-1])
    assert shown.seconds == pytest.approx(0.02 * shown.returns[0, 0])
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ValueError, match=r"cannot be drawn here: pygame is not installed, run"):
        render(folder)


@pytest.mark.slow
def test_playground_by_mujoco_and_its_cameras(tmp_path):
    folder = untrained(tmp_path, "CartpoleBalance", episode_length=40)
    out = folder / "video.mp4"
    assert cli.main(["render", str(folder), "--episodes", "2", "--size", "96x64"]) == 0
    frames, fps = decode(out)
    assert (fps, frames.shape) == (50.0, (2 * 20, 64, 96, 3))
    assert differ(frames[0], frames[19])
    assert differ(frames[0], frames[20])
    free, fixed = (
        render(folder, camera=name, size=(96, 64), seconds=0.01).frames for name in ("free", 0)
    )
    assert differ(free[0], fixed[0])
    with pytest.raises(ValueError, match="the cameras here are 'fixed', 'lookatcart', 'free'; did"):
        render(folder, camera="lookcart")
    with pytest.raises(ValueError, match="only Brax environments have a viewer"):
        render(folder, folder / "video.html")


@pytest.mark.slow
def test_brax_by_mujoco_and_its_own_viewer(tmp_path):
    folder = untrained(tmp_path, "inverted_pendulum", episode_length=20)
    shown = render(folder, size=(96, 64))
    assert shown.frames.shape[1:] == (64, 96, 3)
    assert differ(shown.frames[0], shown.frames[-1])
    page = render(folder, folder / "video.html")
    assert page.count == shown.count
    assert "system_json" in page.path.read_text() or "brax" in page.path.read_text()
    np.testing.assert_allclose(page.returns, shown.returns, rtol=1e-5)


SENTENCES = {
    "--episodes 0": "episodes is 0; at least 1 is needed",
    "--seconds 0": "seconds is 0; it must be positive",
    "--seconds nan": "seconds is nan; it must be positive",
    "--fps 0": "fps is 0; a video takes from 1 to 240",
    "--fps nan": "fps is nan; a video takes from 1 to 240",
    "--fps 60 --out run.gif": "fps is 60; a gif takes from 1 to 50",
    "--size 320": "size is '320'; it must be WIDTHxHEIGHT",
    "--size 0x10": "size is 0x10; width and height must be from 16 to 4096",
    "--start -1": "start is -1; it must be from 0",
    "--seed 3": "seed is 3; this run has seeds 0 to 2",
    "--setting 1": "setting is 1; this run has settings 0 to 0",
    "--grid --seed 1": "seed is 1, but a grid shows all seeds",
    "--out run.avi": "out is 'run.avi'; its name must end in .mp4, .gif, .html",
    "--out there/run.mp4": "there is no folder 'there'",
    "--out folder.mp4": "out is 'folder.mp4', which is a folder",
    "--out run.html --grid": "grid is for .mp4 and .gif",
    "--out run.html": "only Brax environments have a viewer in .html",
    "--camera back": "camera is 'back', but the cameras here are 'free'",
}


@pytest.mark.parametrize("arguments", SENTENCES)
def test_what_cannot_be_is_a_sentence(trained, tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.mp4").mkdir()
    capsys.readouterr()
    code, said = answer(capsys, "render", str(trained), *arguments.split())
    assert (code, SENTENCES[arguments] in said) == (2, True), said
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]


def test_no_run_no_policy_no_task_to_see(trained, tmp_path, monkeypatch, capsys):
    code, said = answer(capsys, "render", str(tmp_path / "nothing"))
    assert (code, "is not a run" in said) == (2, True)
    policies = load_policies(trained)
    monkeypatch.setattr(stages.hosts, "is_host_task", lambda task: False)
    monkeypatch.setattr(
        stages.envs, "find_family", lambda task: (stages.envs.named_family("gymnax:x"), "x")
    )
    assert policies is not None
    code, said = answer(capsys, "render", str(trained))
    assert (code, "cannot be shown: what can are tasks of MuJoCo Playground" in said) == (2, True)


def test_a_machine_without_opengl_is_told_what_to_install(monkeypatch):
    tried = []

    def attempt(program, arguments=(), environment=None):
        tried.append((environment or {}).get("MUJOCO_GL"))
        return False, "no library."

    monkeypatch.setattr(headless, "attempt", attempt)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    headless._working.cache_clear()
    with pytest.raises(ValueError, match="neither EGL nor OSMesa can draw without") as error:
        headless.use_headless_gl()
    assert tried == ["egl", "osmesa"]
    assert "apt-get install libegl1" in str(error.value)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(ValueError, match="MUJOCO_GL is 'glfw', which cannot draw"):
        headless.use_headless_gl()
    headless._working.cache_clear()


def test_what_is_tried_elsewhere_says_how_it_ended():
    assert headless.attempt("import sys; print(sys.argv[1])", ["yes"]) == (True, "yes")
    works, said = headless.attempt("import os; os._exit(7)")
    assert (works, said) == (False, "exit code 7")


def test_a_video_that_cannot_be_made_fails_no_run(trained, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise RuntimeError("the driver is gone.\nMore of it.")

    monkeypatch.setattr("reppo_fx.run.render_verb.render", broken)
    assert cli.main(["train", "--resume", str(trained), "--video"]) == 0
    said = capsys.readouterr().out
    assert "No video: the driver is gone.\n" in said
    assert f"{PENDULUM}: return" in said


def test_without_the_extra_it_is_said_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    command = ["train", PENDULUM, *TINY, "--video", "--out", str(tmp_path / "run")]
    code, said = answer(capsys, *command)
    assert (code, "pip install 'reppo_fx[video]'" in said) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_video_that_is_not_finished_is_not_there(tmp_path):
    frame = np.zeros((16, 16, 3), np.uint8)

    def write(path, interrupted):
        with video.Writer(path, video.make_clock(0.1).fps) as writer:
            writer(frame)
            if interrupted:
                raise KeyboardInterrupt
            path.parent.rmdir()

    gone = tmp_path / "gone"
    gone.mkdir()
    # No folder by the time that the encoder writes there.
    with pytest.raises(OSError, match="cannot be written|not empty|No such file"):
        write(gone / "a.mp4", interrupted=False)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "b.mp4", interrupted=True)
    assert not (tmp_path / "b.mp4").exists()
    assert not list(tmp_path.rglob("*part*"))


def test_more_than_three_are_put_into_rows():
    pictures = [np.full((4, 6, 3), value, np.uint8) for value in range(5)]
    assert video.tiled(pictures[:3]).shape == (4, 18, 3)
    frame = video.tiled(pictures)
    assert frame.shape == (8, 18, 3)
    assert frame[::4, ::6, 0].tolist() == [[0, 1, 2], [3, 4, 0]]


def test_sizes_are_typed_as_they_are_read():
    assert render_verb.parse_size("64X48") == (64, 48)
    assert render_verb.parse_size(None) is None
