"""ManiSkill without a rendering device: materials and visuals do nothing. For tests and measurements alone.

Physics, observations of states and rewards are ManiSkill's own. A task that reads its visual shapes fails (PushT).
"""

from __future__ import annotations

import importlib
import inspect
import sys


class Blank:
    """A material or a texture that nobody will see: what was set, else methods that do nothing."""

    def __init__(self, *arguments: object, **settings: object) -> None:
        self.__dict__.update(settings)

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **settings: None


def without_rendering(monkeypatch) -> None:
    """Build ManiSkill's tasks without visuals, until the monkeypatch is undone."""
    importlib.import_module("mani_skill.envs")
    for name in ("RenderMaterial", "RenderTexture2D"):
        real = getattr(sys.modules["sapien"].render, name)
        # Several modules have a name of their own for it.
        for module in list(sys.modules.values()):
            if module.__name__.startswith(("sapien", "mani_skill")) and (
                vars(module).get(name) is real
            ):
                monkeypatch.setattr(module, name, Blank)
    builder = importlib.import_module("sapien.wrapper.actor_builder").ActorBuilder
    builders = (
        builder,
        importlib.import_module("mani_skill.utils.building.actor_builder").ActorBuilder,
    )
    for cls in builders:
        for name, _ in inspect.getmembers(cls, inspect.isfunction):
            if name.startswith("add_") and "visual" in name:
                monkeypatch.setattr(cls, name, lambda self, *arguments, **settings: self)
    render = importlib.import_module("mani_skill.render.utils")
    monkeypatch.setattr(render, "can_render", lambda device: False)
