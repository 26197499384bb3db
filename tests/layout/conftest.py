"""What the layer rules are checked on: the files of the project, and C++ sources with comments and strings blanked.

The rules read sources as text. They need neither git nor a compiler, so they also hold in an unpacked archive.
Invariant: blanking keeps every line break, so that line numbers stay true.
"""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *("core", "runtime", "extension", "lab", "python", "tests", "benchmarks", "examples", "tools", "docs", "cmake"),
    ".ci",
)
PRODUCT = ("core/", "runtime/", "extension/", "lab/")
SKIPPED_FOLDERS = {"__pycache__", "build"}

_COMMENTS_AND_STRINGS = re.compile(
    r"""//[^\n]* | /\*.*?\*/ | R"(?P<mark>[^\s()\\]*)\(.*?\)(?P=mark)" | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])+'""",
    re.VERBOSE | re.DOTALL,
)
_DIGIT_SEPARATOR = re.compile(r"(?<=[0-9a-fA-F])'(?=[0-9a-fA-F])")


@dataclass(frozen=True)
class SourceFile:
    """One file of the project."""

    path: str  # relative to the root, with slashes

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    @property
    def suffix(self) -> str:
        return Path(self.path).suffix

    @property
    def is_cpp(self) -> bool:
        return self.suffix in (".cpp", ".hpp", ".in")

    @property
    def is_public_header(self) -> bool:
        return self.path.startswith(("core/include/", "runtime/include/")) and self.suffix == ".hpp"

    @property
    def line_count(self) -> int:
        return self.text.count("\n")

    @cached_property
    def code(self) -> str:
        """The text of a C++ file with the contents of comments and strings blanked."""
        return blank_comments_and_strings(self.text)

    def lines_matching(self, pattern: str) -> list[str]:
        """Where the code, not a comment, matches."""
        return [
            f"{self.path}:{number}: {line.strip()}"
            for number, line in enumerate(self.code.splitlines(), 1)
            if re.search(pattern, line)
        ]


def blank_comments_and_strings(text: str) -> str:
    def blank(match: re.Match[str]) -> str:
        quoted = match[0].startswith(("'", '"', "R"))
        kept = match[0][0] + match[0][-1] if quoted else ""
        return kept + "\n" * match[0].count("\n")

    # An include's name stays: it is what the layer rules look at.
    parts = re.split(r"(^[ \t]*#[ \t]*include[^\n]*$)", _DIGIT_SEPARATOR.sub("", text), flags=re.MULTILINE)
    return "".join(part if index % 2 else _COMMENTS_AND_STRINGS.sub(blank, part) for index, part in enumerate(parts))


@pytest.fixture(scope="session")
def files() -> list[SourceFile]:
    found = [
        SourceFile(str(path.relative_to(ROOT)))
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and not SKIPPED_FOLDERS & set(path.parts[len(ROOT.parts) :])
    ]
    found += [SourceFile(path.name) for path in sorted(ROOT.iterdir()) if path.is_file() and path.name != ".git"]
    assert any(file.path.startswith("core/include/") for file in found), "the project was not found"
    return [file for file in found if file.suffix not in (".png", ".pyc", ".so")]


@pytest.fixture(scope="session")
def product(files: list[SourceFile]) -> list[SourceFile]:
    """The C++ and assembly that is shipped."""
    return [file for file in files if file.path.startswith(PRODUCT) and (file.is_cpp or file.suffix == ".S")]


@pytest.fixture(scope="session")
def package(files: list[SourceFile]) -> list[SourceFile]:
    """The Python that is shipped, stubs included."""
    return [file for file in files if file.path.startswith("python/") and file.suffix in (".py", ".pyi")]


@pytest.fixture(scope="session")
def exceptions() -> dict[str, Any]:
    """Today's exceptions to the limits on size."""
    return tomllib.loads((Path(__file__).parent / "exceptions.toml").read_text())


@pytest.fixture(scope="session")
def check_limit() -> Callable[[dict[str, int], int, dict[str, int]], list[str]]:
    """Compare sizes with a limit and its exceptions, which must be exact: the list may only shrink."""

    def check(sizes: dict[str, int], limit: int, allowed: dict[str, int]) -> list[str]:
        problems = [
            f"{name}: {size} lines, the limit is {allowed.get(name, limit)}"
            for name, size in sizes.items()
            if size > allowed.get(name, limit)
        ]
        for name, permitted in allowed.items():
            size = sizes.get(name, 0)
            if size <= limit:
                problems.append(f"{name}: {size} lines; it needs no exception any more, remove it")
            elif size < permitted:
                problems.append(f"{name}: {size} lines; lower its exception from {permitted}")
        return problems

    return check
