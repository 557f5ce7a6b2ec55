"""The host side: loop, progress, records, checkpoints, pictures, command line. Nothing else imports it."""

from typing import TYPE_CHECKING, Any

from .._errors import require_extra
from .checkpoints import CheckpointError, Checkpoints, Restored
from .export import export_policy, export_run, read_policy
from .loop import Progress
from .policies import load_policies, load_policy
from .records import read_config
from .render import Video, render

if TYPE_CHECKING:
    from .live import Trained, train_live

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "Progress",
    "Restored",
    "Trained",
    "Video",
    "export_policy",
    "export_run",
    "load_policies",
    "load_policy",
    "read_config",
    "read_policy",
    "render",
    "train_live",
]


def __getattr__(name: str) -> Any:
    """What shows something is imported when it is asked for: a robot that loads a policy needs none of it."""
    if name not in ("Trained", "train_live"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import live
    except ModuleNotFoundError as error:
        raise require_extra(str(error.name), "cli") from error
    return getattr(live, name)
