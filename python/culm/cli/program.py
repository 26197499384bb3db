"""Runs somebody else's program as `python` would, with blocking calls cooperating.

The program sees what it would see without culm: sys.argv, sys.path[0], its own module `__main__`, its exit status and
tracebacks without a frame of ours. An unhandled KeyboardInterrupt ends the process by SIGINT, because the interpreter
itself handles the exception.
Invariant: nothing of the command line's state is visible in the program's `__main__`.
"""

import builtins
import io
import os
import pkgutil
import runpy
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from typing import Any

import culm

_OUR_FILE = __file__


@dataclass(frozen=True)
class Program:
    """A program as named on the command line, and its arguments."""

    name: str
    is_module: bool
    arguments: Sequence[str]

    def run(self) -> int:
        """Run it to its end. Raises what the program raises, SystemExit included."""
        main_module = types.ModuleType("__main__")
        main_module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = main_module
        sys.argv = [self.name, *self.arguments]
        culm.patch(threads=True)
        try:
            if self.is_module:
                return self._run_module()
            if isinstance(pkgutil.get_importer(self.name), types.NoneType):
                return self._run_script(main_module)
            return self._run_container()
        except SystemExit:
            raise
        except BaseException:
            _hide_our_frames_from_report()
            raise

    def _run_module(self) -> int:
        sys.argv[0] = "-m"  # what `python -m` sets it to while it looks for the module
        _set_first_path(str(Path.cwd()))
        _run_as_main(self.name, alter_argv=True)
        return 0

    def _run_container(self) -> int:
        _set_first_path(str(Path(self.name).absolute()))
        _run_as_main("__main__", alter_argv=False)
        return 0

    def _run_script(self, main_module: types.ModuleType) -> int:
        path = os.path.join(Path.cwd(), self.name)  # noqa: PTH118  # python keeps a "./" in it
        try:
            code = _code_of(path)
        except OSError as error:
            print(f"culm run: can't open file {path!r}: [Errno {error.errno}] {error.strerror}", file=sys.stderr)
            return 2
        _set_first_path(str(Path(path).resolve().parent))
        loader = SourcelessFileLoader if path.endswith(".pyc") else SourceFileLoader
        main_module.__file__ = path
        main_module.__loader__ = loader("__main__", path)
        if sys.version_info < (3, 15):
            main_module.__dict__["__cached__"] = None
        exec(code, main_module.__dict__)
        return 0


def _run_as_main(name: str, *, alter_argv: bool) -> None:
    # What `python -m` itself calls; the public run_module puts the old __main__ back before the program has ended.
    run_module_as_main: Any = runpy._run_module_as_main  # type: ignore[attr-defined]
    run_module_as_main(name, alter_argv)


def _code_of(path: str) -> types.CodeType:
    with io.open_code(path) as file:
        compiled: types.CodeType | None = pkgutil.read_code(file)
    if compiled is not None:
        return compiled
    with io.open_code(path) as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _set_first_path(path: str) -> None:
    if getattr(sys.flags, "safe_path", False):
        return  # python -P leaves the first entry out
    sys.path[0] = path


def _hide_our_frames_from_report() -> None:
    """Have the interpreter's report of the exception that is being raised begin with the program's first frame."""
    program_hook = sys.excepthook

    def report(kind: type[BaseException], value: BaseException, trace: types.TracebackType | None) -> None:
        sys.excepthook = program_hook
        while trace is not None and not _is_the_programs(trace):
            trace = trace.tb_next
        value.__traceback__ = trace
        program_hook(kind, value, trace)

    sys.excepthook = report


def _is_the_programs(trace: types.TracebackType) -> bool:
    """Whether this frame lies below the last of our own."""
    following: types.TracebackType | None = trace
    while following is not None:
        if following.tb_frame.f_code.co_filename == _OUR_FILE:
            return False
        following = following.tb_next
    return True
