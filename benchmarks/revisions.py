"""Revisions of culm, built and installed beside each other for compare.py.

Each revision's sources lie in a folder of build/compare that is named after the hash of their git tree, with a virtual
environment and the C++ benchmarks inside. So what was built already is used again, for every revision with that tree.
The working tree is a revision too: its tree has every file that git does not ignore, committed or not.
Invariant: neither the working tree nor git's index is changed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measuring import ROOT, build_programs

FOLDER = ROOT / "build" / "compare"


@dataclass(frozen=True)
class Revision:
    """A revision whose sources are unpacked."""

    text: str  # how it was named, and which commit that is
    tree: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ".venv" / "bin" / "python"

    def program(self, name: str) -> Path:
        return self.folder / "build" / "release" / "benchmarks" / name

    def install(self) -> None:
        """Build culm and install it into a virtual environment, with the interpreter that runs this program."""
        environment = os.environ | {"PYTHON": str(Path(sys.executable).resolve())}
        run(["tools/bootstrap", ".venv"], self.folder, environment)
        installed = self.folder / ".venv" / ".installed"  # goes with .venv, which is made anew for another interpreter
        if not installed.exists():
            print(f"building {self.text} in {self.folder.relative_to(ROOT)}", file=sys.stderr)
            command = [str(self.python), "-m", "pip", "install", "--quiet", "--no-build-isolation", "."]
            run(command, self.folder, environment | {"PATH": f"{self.python.parent}:{os.environ['PATH']}"})
            installed.touch()

    def build_programs(self, *names: str) -> None:
        build_programs(self.folder, *names)


def working_tree() -> Revision:
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git("read-tree", "HEAD", **index)
        git("add", "--all", **index)
        tree = git("write-tree", **index)
    changed = "" if tree == git("rev-parse", "HEAD^{tree}") else ", with changes"
    return unpacked(f"the working tree ({git('rev-parse', '--short', 'HEAD')}{changed})", tree)


def committed(name: str) -> Revision:
    try:
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except subprocess.CalledProcessError:
        raise SystemExit(f"git knows no commit {name!r}") from None
    short = git("rev-parse", "--short", commit)
    return unpacked(name if name == short else f"{name} ({short})", git("rev-parse", f"{commit}^{{tree}}"))


def unpacked(text: str, tree: str) -> Revision:
    revision = Revision(text, tree, FOLDER / tree[:12])
    if not revision.folder.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        # Renamed when it is complete, so that an interrupted run leaves no half of a folder under that name.
        with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
            index = {"GIT_INDEX_FILE": f"{temporary}/index"}
            git("read-tree", tree, **index)
            git("checkout-index", "--all", f"--prefix={temporary}/sources/", **index)
            shutil.move(f"{temporary}/sources", revision.folder)
    return revision


def git(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    status = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with {status} in {folder}")
