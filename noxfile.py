"""The version matrix: the suite on every CPython that is supported and found, and the checks that need no suite.

`nox` runs all of it; `nox -s tests-3.13` one version. An interpreter that is not installed is skipped, unless
CULM_REQUIRE_PYTHONS names it (`3.12 3.13`): then its absence is a failure.
CPython 3.14 and 3.15 also come from tools/sid.
"""

import os
import shutil
from pathlib import Path

import nox

VERSIONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]

nox.needs_version = ">=2024.4.15"
nox.options.envdir = "build/nox"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False


def build_tools() -> list[str]:
    """Return what builds the extension; the system's CMake and Ninja are used where there are any."""
    return ["scikit-build-core>=0.11", *(name for name in ("cmake", "ninja") if shutil.which(name) is None)]


def extra(session: nox.Session, name: str) -> list[str]:
    """Return the requirements of one extra of pyproject.toml."""
    return str(session.run("python", "tools/extra", name, silent=True)).splitlines()


@nox.session(python=VERSIONS)
def tests(session: nox.Session) -> None:
    """Build, install, and run the Python suite; arguments go to pytest."""
    session.install("--quiet", *build_tools())
    session.install("--quiet", "--no-build-isolation", ".[cli,lab,test]")
    session.run("tools/interpreter-tests", "python", "-q", external=True)
    session.run("tools/python-tests", "python", *(session.posargs or ["-q"]), external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and style, of C++ and of Python."""
    session.install("--quiet", *extra(session, "lint"))
    sources = [
        str(path)
        for top in ("core", "runtime", "extension", "tests", "benchmarks", "examples")
        for path in sorted(Path(top).rglob("*.[ch]pp"))
    ]
    session.run("clang-format", "--dry-run", "-Werror", *sources)
    python_sources = ["python", "tests", "benchmarks", "examples", "tools", "noxfile.py"]
    session.run("ruff", "check", *python_sources)
    session.run("ruff", "format", "--check", *python_sources)


@nox.session
def typing(session: nox.Session) -> None:
    """Strict types over the package."""
    session.install("--quiet", *extra(session, "lint"), *extra(session, "lab"))
    session.run("mypy")


def missing(required: str) -> list[str]:
    """Return those of the required versions for which no interpreter is found."""
    return [version for version in required.split() if shutil.which(f"python{version}") is None]


if absent := missing(os.environ.get("CULM_REQUIRE_PYTHONS", "")):
    raise SystemExit(f"noxfile.py: CPython {', '.join(absent)} is required but not found on PATH")
