"""What schedulers and libraries are built from: park and unpark, the symmetric switch, waiting for descriptors.

Most programs need none of this: ordinary blocking calls park by themselves after culm.patch().
"""

from culm._culm import (
    Fiber,
    keep_fibers_after_fork,
    park,
    resident_pages,
    switch,
    unpark,
    wait_readable,
    wait_writable,
)

__all__ = [
    "Fiber",
    "keep_fibers_after_fork",
    "park",
    "resident_pages",
    "switch",
    "unpark",
    "wait_readable",
    "wait_writable",
]
