"""What every Python test has: a patched process, and the proof that a test leaves no fiber behind."""

import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import culm

culm.patch()

# A run that was started in the background has SIGINT ignored, and the children that tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_fiber_is_left() -> Iterator[None]:
    """Fails a test that leaves a fiber behind, and ends that fiber."""
    yield
    gc.collect()
    left = culm.fibers()
    for fiber in left:
        fiber.cancel()
    for fiber in left:
        fiber.join(5)
    assert left == [], f"the test left fibers behind: {left}"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def rng() -> random.Random:
    """A random generator whose seed is printed, so that a failure can be repeated with CULM_SEED."""
    seed = int(os.environ.get("CULM_SEED", random.SystemRandom().randrange(2**32)))
    print(f"CULM_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was reported through sys.unraisablehook."""
    reports: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append((repr(report.object), report.exc_value)))
    return reports


@pytest.fixture
def run_script(tmp_path: object) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python source in a process of its own, with this interpreter; fails the test if it hangs."""

    def run(source: str, *arguments: str, timeout: float = 60, **options: object) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}/script.py"
        with open(path, "w") as script:
            script.write(source)
        return subprocess.run(
            [sys.executable, "-W", "ignore::ResourceWarning", *arguments, path],
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,  # type: ignore[call-overload]
        )

    return run


@pytest.fixture(scope="session")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Makes a shared library of a C file of this folder; skips the test where there is no C compiler."""

    def compile_one(source: str) -> str:
        compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler")
        made = tmp_path_factory.mktemp("library") / f"{Path(source).stem}.so"
        command = [compiler, "-O1", "-fno-inline", "-shared", "-fPIC", "-o", made, Path(__file__).parent / source]
        subprocess.run([*command, "-ldl"], check=True)
        return str(made)

    return compile_one


@pytest.fixture(scope="session")
def dive_library(compile_library: Callable[[str], str]) -> str:
    """dive.c as a shared library: C code that uses up stack without the interpreter noticing."""
    return compile_library("dive.c")
