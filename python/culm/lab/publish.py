"""Writes files so that each is there whole or not at all.

Invariant: whoever opens a file sees the old or the new content, never a part, and a failure leaves nothing behind.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["GENERATOR", "JSON_NAME", "PAGE_NAME", "check_writable", "publish", "publish_folder"]

PAGE_NAME = "index.html"
JSON_NAME = "lab.json"
# A page with this line is a report that an earlier run wrote, and may be replaced.
GENERATOR = '<meta name="generator" content="culm lab">'


def check_writable(folder: Path) -> None:
    """Find out before the work begins whether files can be put into `folder`, which need not exist yet.

    OSError if not. Leaves nothing behind and changes nothing.
    """
    nearest = folder
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is not a directory")
    # A file is made, because access() says yes to root even on a read-only file system. It has no name and is gone when
    # it is closed.
    with tempfile.TemporaryFile(dir=nearest):
        pass


def publish(path: Path, content: bytes) -> None:
    """Put a file in place. OSError if that cannot be done."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o666 & ~_file_mode_mask())
        os.replace(temporary, path)  # noqa: PTH105  # it is a name, not a Path
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise


def publish_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put these files into `folder`, which is made if it is not there. Other files in it are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        publish(folder / name, content)


def _file_mode_mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
