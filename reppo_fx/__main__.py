"""`reppo-fx`, also as `python -m reppo_fx`."""

import sys


def main() -> int:
    """Run the command line; without its packages, say which extra brings them."""
    try:
        from .run.cli import main as run
        from .run.loop import leave
    except ImportError as error:
        print(
            f"reppo-fx needs the package {error.name!r}; install it with: pip install 'reppo_fx[cli]'",
            file=sys.stderr,
        )
        return 2
    return leave(run())


if __name__ == "__main__":
    sys.exit(main())
