"""A training on a simulator, or on a pure world for comparison, from a command line's arguments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from settings import our_settings, read_our_changes

import reppo_fx as rx
from reppo_fx import hosts
from reppo_fx.run.worlds import AnyTrain


def value_of(text: str) -> Any:
    """A whole number, a number, or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def make_train(arguments: argparse.Namespace, task: str) -> tuple[AnyTrain, rx.Hyperparameters]:
    """For a pure world's name, or `FAMILY:NAME`."""
    changes = read_our_changes(arguments.preset, arguments.set)
    config, hyperparameters = our_settings(arguments.preset, changes)
    if not hosts.is_host_task(task):
        return rx.make_train(rx.envs.make(task), config), hyperparameters
    family, _, name = task.partition(":")
    options = {k: value_of(v) for k, _, v in (text.partition("=") for text in arguments.env)}
    env = hosts.FAMILIES[family].make(name, **options)
    return rx.make_host_train(env, config), hyperparameters


def members(arguments: argparse.Namespace, hp: rx.Hyperparameters) -> tuple[Any, Any]:
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.seeds)
    return keys, jax.tree.map(lambda x: np.full(arguments.seeds, x, np.float32), hp)


def without_rendering() -> None:
    """Stand in for what ManiSkill asks of a rendering device, which states do not need."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import pytest

    from tests.hosts.sapien_stub import without_rendering as stand_in

    stand_in(pytest.MonkeyPatch())
