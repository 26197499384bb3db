"""Fiber.traceback(): the frames of a fiber as a traceback.StackSummary."""

import traceback
from types import FrameType


def summarize(frame: FrameType | None) -> traceback.StackSummary:
    """The frame and its callers, outermost call first, as tracebacks are printed; empty for None."""
    if frame is None:
        return traceback.StackSummary()
    summary = traceback.StackSummary.extract(traceback.walk_stack(frame))
    summary.reverse()
    return summary
