"""The command `culm`: run, demo, doctor, lab.

The commands are written with click and rich, which `pip install culm` leaves out: a library should not bring them
along. Without them `main` says how to get them.
"""

import sys
from importlib.util import find_spec

__all__ = ["main"]

_NEEDED = ("click", "rich")


def main() -> int:
    """Run the command line in `sys.argv` and return the exit status."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        extra = "lab" if sys.argv[1:2] == ["lab"] else "cli"
        print(
            f"culm: the command line needs {' and '.join(missing)}, which this installation left out.\n"
            f"      Install it with:  pip install 'culm[{extra}]'",
            file=sys.stderr,
        )
        return 2
    from culm.cli.commands import execute

    return execute(sys.argv[1:])
