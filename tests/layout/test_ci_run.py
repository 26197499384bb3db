"""How .ci/run treats its steps: the script itself, in a folder where every program only writes down its call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "run"
SYSTEM_PROGRAMS = ["apt-get", "debootstrap", "make", "ccache", "python3.12", "python3.13"]
OWN_PROGRAMS = ["tools/cxx-tests", "tools/python-tests", "tools/sid", "tools/debian-archive", ".venv/bin/python"]
STUB = """#!/bin/sh
echo "${0##*/} $*" >>"$CI_CALLS"
[ "${0##*/} $*" != "$CI_FAILS" ]
"""

pytestmark = pytest.mark.skipif((ROOT / "PKG-INFO").exists(), reason="an unpacked source archive has no .ci")


@pytest.fixture
def ci(tmp_path):
    """Runs .ci/run with the environment given on top; returns its exit status, what it printed, and the calls."""
    (tmp_path / ".ci").mkdir()
    shutil.copy2(SCRIPT, tmp_path / ".ci" / "run")
    for program in [*(f"bin/{name}" for name in SYSTEM_PROGRAMS), *OWN_PROGRAMS]:
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STUB)
        path.chmod(0o755)

    def run(**settings: str) -> tuple[int, str, list[str]]:
        calls = tmp_path / "calls"
        environment = {
            **os.environ,
            "CI_CALLS": str(calls),
            "CI_FAILS": "",
            "CULM_CI_MINUTES": "75",
            "TMPDIR": str(tmp_path),
            **settings,
        }
        environment["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            [tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=110, check=False
        )
        assert done.stderr == ""
        return done.returncode, done.stdout, calls.read_text().splitlines()

    return run


def test_every_step_runs(ci):
    status, printed, calls = ci()
    assert (status, printed.splitlines()[-1]) == (0, "All passed.")
    assert "LEFT OUT" not in printed
    assert {f"cxx-tests {preset}" for preset in ("asan", "tsan", "ucontext", "aarch64")} < set(calls)
    assert {"make -k -s test", "make -s lint", "sid test -q -m not slow", "sid prepare"} < set(calls)


def test_a_step_that_fails_stops_no_other_and_is_named(ci):
    status, printed, calls = ci(CI_FAILS="make -k -s test")
    assert status == 1
    assert printed.endswith("FAILED:\n  make test\n")
    assert {"cxx-tests asan", "cxx-tests aarch64", "sid test -q -m not slow"} < set(calls)


# bash begins to count SECONDS from what the environment says.
def test_what_does_not_fit_into_the_time_is_left_out_and_named(ci):
    status, printed, calls = ci(SECONDS=str(75 * 60 - 90))
    assert (status, printed.splitlines()[-1]) == (0, "All passed.")
    assert "LEFT OUT: make test: it takes about " in printed
    assert "make -k -s test" not in calls
    assert "make -s lint" in calls


def test_the_limit_can_be_chosen(ci):
    status, printed, calls = ci(CULM_CI_MINUTES="0")
    assert status == 0
    assert "LEFT OUT: packages" in printed
    assert "make -s lint" not in calls
