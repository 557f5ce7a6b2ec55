"""Weights & Biases: a run per member, grouped by folder; kept offline where there is no account."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import requests
import wandb

from .logs import Member, Start, numbers_of
from .plain import shell_word
from .table import Evaluation

PROJECT = "reppo_fx"
FINISH_TIMEOUT = 60.0
"""Seconds that the end of a run waits for what is not uploaded yet; the rest stays on the disk."""


class WandbLog:
    """Runs of all members, side by side in this process. They go on under the same ids.

    What is on the server is not sent again. Offline there is no server to ask: a run that goes on is kept anew, as
    a whole, from `metrics.csv`, in place of the parts before.
    """

    def __init__(self, start: Start) -> None:
        # For W&B this is the place to look, not for whoever calls it: an environment variable, or its own files.
        found = wandb.setup().settings
        offline = found.mode in ("offline", "dryrun")
        offline = offline or (found.mode == "online" and not _has_account(found))
        mode = "offline" if offline else found.mode
        self._members = start.members
        self._runs: list[Any] = []
        before = _kept_offline(start) if offline else []
        try:
            for index, member in enumerate(start.members):
                self._runs.append(_open(start, member, index, mode))
            for evaluation in start.made:
                self.write(evaluation)
        except BaseException:
            with contextlib.suppress(Exception):
                self.close(failed=True)
            raise
        for folder in before:
            shutil.rmtree(folder, ignore_errors=True)
        self._tell(start, mode)

    def write(self, evaluation: Evaluation) -> None:
        """Every number of every member, at the steps of the evaluation."""
        members = zip(self._runs, self._members, evaluation.rows, strict=True)
        for run, member, row in members:
            if evaluation.env_steps >= run.starting_step:
                numbers = {"env_steps": evaluation.env_steps, **numbers_of(row, member)}
                run.log(numbers, step=evaluation.env_steps)

    def close(self, failed: bool) -> None:
        """Finish all of them."""
        for run in self._runs:
            run.finish(exit_code=int(failed))

    def _tell(self, start: Start, mode: str) -> None:
        if mode == "online":
            run = self._runs[0]
            start.say(f"W&B: {run.url if len(self._runs) == 1 else run.project_url}")
        elif mode == "offline":
            kept = shell_word(str(start.folder / "wandb"))
            start.say(f"W&B: kept offline; upload with: wandb sync {kept}/offline-run-*")


def _open(start: Start, member: Member, index: int, mode: str) -> Any:
    run = wandb.init(
        id=f"{start.id}-{index}",
        name=f"{start.folder.name} {member.name}",
        group=os.environ.get("WANDB_RUN_GROUP", f"{start.folder.name} {start.id}"),
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        job_type="sweep" if member.swept else "train",
        dir=start.folder,
        config={**member.settings, "seed": member.seed, **start.facts},
        mode=mode,  # type: ignore[arg-type]  # as its own settings have it
        resume="allow",
        reinit="create_new",  # all of them at once, beside those of the caller
        settings=wandb.Settings(
            silent=True,
            console="off",
            finish_timeout=FINISH_TIMEOUT,
            x_disable_stats=index > 0,  # one machine, measured once
        ),
    )
    run.define_metric("*", step_metric="env_steps")
    return run


def _has_account(settings: wandb.Settings) -> bool:
    """Whether it can log in without asking."""
    known = settings.api_key or settings.identity_token_file
    return bool(known or requests.utils.get_netrc_auth(settings.base_url))


def _kept_offline(start: Start) -> list[Path]:
    return sorted((start.folder / "wandb").glob(f"offline-run-*-{start.id}-*"))
