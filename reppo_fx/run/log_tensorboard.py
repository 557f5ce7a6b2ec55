"""TensorBoard: an event file per member in `tensorboard/`, with its hyperparameters; seeds are a group."""

from __future__ import annotations

import time
from pathlib import Path

# Why tensorboardX: 0.3 MB that brax and flax bring anyway. It never imports TensorFlow, which tensorboard's own
# EventFileWriter does wherever that is installed, and brings no server. Only its record writer is used: the
# SummaryWriter hands events to a thread, whose failure nobody hears of and whose full queue stops the caller.
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from .logs import Member, Start, numbers_of
from .table import Evaluation

EVENTS = "events.out.tfevents."
FOLDER = "tensorboard"
SUCCESS, FAILURE = 1, 2  # of the HParams plugin's Status


class TensorBoardLog:
    """Event files of all members.

    Those of a run that goes on are made anew from `metrics.csv`, so that every reader finds each point once; its
    earlier points are dated as if there had been no pause.
    """

    def __init__(self, start: Start) -> None:
        self._members = start.members
        self._writers: list[RecordWriter] = []
        try:
            before = self._begin(start)
        except BaseException:
            self._close_files()
            raise
        for path in before:
            path.unlink(missing_ok=True)

    def write(self, evaluation: Evaluation) -> None:
        """Every number of every member as a point, on the disk when this returns."""
        self._write(evaluation, time.time())
        self._flush()

    def close(self, failed: bool) -> None:
        """Say how the runs ended."""
        content = HParamsPluginData(
            session_end_info=SessionEndInfo(
                status=FAILURE if failed else SUCCESS, end_time_secs=time.time()
            )
        )
        try:
            for writer in self._writers:
                _write(writer, Event(wall_time=time.time(), summary=_hparams("end", content)))
            self._flush()
        finally:
            self._close_files()

    def _begin(self, start: Start) -> list[Path]:
        """Open a file for each member, with what was before; gives the files that it replaces."""
        now = time.time()
        before: list[Path] = []
        last = float(start.made[-1].rows[0]["seconds"]) if start.made else 0.0
        for member in start.members:
            folder = (start.folder / FOLDER / member.name).absolute()
            folder.mkdir(parents=True, exist_ok=True)
            before += folder.glob(f"{EVENTS}*")
            # An absolute path: others may begin like the address of a cloud's storage.
            writer = RecordWriter(str(_fresh(folder, int(now))))
            self._writers.append(writer)
            _write(writer, Event(wall_time=now - last, file_version="brain.Event:2"))
            _write(writer, Event(wall_time=now - last, summary=_session(member, now - last)))
        for evaluation in start.made:
            self._write(evaluation, now - last + float(evaluation.rows[0]["seconds"]))
        self._flush()
        return before

    def _write(self, evaluation: Evaluation, wall_time: float) -> None:
        members = zip(self._writers, self._members, evaluation.rows, strict=True)
        for writer, member, row in members:
            values = [
                Summary.Value(tag=name, simple_value=number)
                for name, number in numbers_of(row, member).items()
            ]
            summary = Summary(value=values)
            _write(writer, Event(wall_time=wall_time, step=evaluation.env_steps, summary=summary))

    def _flush(self) -> None:
        for writer in self._writers:
            writer.flush()

    def _close_files(self) -> None:
        for writer in self._writers:
            writer.close()


def _fresh(folder: Path, second: int) -> Path:
    """A new event file; readers take them in the order of their names."""
    while (path := folder / f"{EVENTS}{second:010d}.reppo_fx").exists():
        second += 1
    return path


def _session(member: Member, started: float) -> Summary:
    """What the HParams plugin shows of a run; it averages over those of a group."""
    info = SessionStartInfo(group_name=member.group, start_time_secs=started)
    for name, value in member.settings.items():
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[name].number_value = value
        elif value is not None:
            info.hparams[name].string_value = str(value)
    return _hparams("start", HParamsPluginData(session_start_info=info))


def _hparams(moment: str, content: HParamsPluginData) -> Summary:
    data = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    tag = f"_hparams_/session_{moment}_info"
    return Summary(value=[Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=data))])


def _write(writer: RecordWriter, event: Event) -> None:
    writer.write(event.SerializeToString())
