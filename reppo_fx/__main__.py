"""`reppo-fx`, also as `python -m reppo_fx`."""

import sys

# The modules that the extra `cli` brings.
EXTRA = {"docstring_parser", "matplotlib", "orbax", "rich", "tyro"}


def main() -> int:
    """Run the command line; where a package is missing, say so, and which extra brings it."""
    try:
        from .run.cli import main as run
        from .run.loop import leave

        return leave(run())
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        how = "; install it with: pip install 'reppo_fx[cli]'" if name in EXTRA else ""
        print(f"reppo-fx: {error}{how}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while all that was imported
        print("reppo-fx: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
