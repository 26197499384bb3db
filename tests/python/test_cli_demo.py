"""`culm demo`: a small run from end to end, and its limits."""

import shutil
import subprocess
import sys

import pytest

pytest.importorskip("rich", reason="the command line needs culm[cli]")

from culm.cli import demo
from culm.cli.demo.course import Dive, descend
from culm.cli.demo.threads import run_on_threads


def test_small_demo_runs_and_prints_its_figures():
    command = [sys.executable, "-m", "culm", "demo", "--clients", "40", "--seconds", "0.2", "--depth-mb", "0.3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for heading in ("Requests per second", "Switches per second", "Resident each, at rest", "Memory mappings"):
        assert heading in done.stdout


def test_threads_are_measured_in_a_process_of_their_own():
    figures = run_on_threads(clients=10, divers=4, levels=20, seconds=0.1)
    assert not isinstance(figures, str), figures
    assert figures.failures == []
    assert figures.os_threads >= 21  # ten clients, ten handlers, the main thread, and perhaps one that is just ending
    assert figures.requests_per_second > 0


def test_reason_is_given_when_the_process_fails(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert run_on_threads(clients=10, divers=4, levels=20, seconds=0.1) == "exit status 1"


def test_fewer_clients_when_descriptors_are_short(monkeypatch):
    monkeypatch.setattr(demo, "raise_descriptor_limit", lambda wanted: 1000)
    remarks: list[str] = []
    fitting = demo._clients_that_fit(10_000, remarks)
    assert 400 < fitting < 500
    assert "limit on open files is 1,000" in remarks[0]


def test_fewer_recurse_when_memory_is_short(monkeypatch):
    monkeypatch.setattr(demo, "available_memory_bytes", lambda: 100 << 20)
    remarks: list[str] = []
    assert demo._divers_that_fit(1000, 2 << 20, remarks) == 25
    assert len(remarks) == 1


def test_descend_reaches_the_bottom_once_and_comes_back():
    reached = []
    assert descend(Dive(30, lambda: reached.append(True))) == 0
    assert reached == [True]
