"""A child of the lab: however it ends is an outcome, and none of its processes is left."""

import os
import stat
import time

import pytest

pytest.importorskip("jinja2", reason="the lab needs culm[lab]")
pytest.importorskip("matplotlib", reason="the lab needs culm[lab]")

from culm.lab.child import run_child
from culm.lab.outcome import Experiment
from culm.lab.probe import Probe, ProbeError


@pytest.fixture
def probe(tmp_path):
    """Makes a probe of a shell script: another program with the same contract."""

    def make(script: str) -> Probe:
        path = tmp_path / "culm-stack-probe"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return Probe(path)

    return make


def run(probe: Probe, seconds_max: float = 30, **options):
    return probe.run(Experiment("growth", "arena", options, seconds_max))


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_result_is_measured(probe):
    outcome = run(probe("""echo '{"ns_per_page": 12.5}'"""))
    assert (outcome.kind, outcome.result) == ("measured", {"ns_per_page": 12.5})


def test_options_become_arguments(probe):
    outcome = run(probe("""printf '{"arguments": "%s"}' "$*" """), limit=65536, locked=True, stride="odd")
    assert outcome.result == {"arguments": "growth --strategy arena --limit 65536 --locked --stride odd"}
    assert outcome.command == "culm-stack-probe growth --strategy arena --limit 65536 --locked --stride odd"


def test_death_by_signal_is_an_outcome_with_what_was_announced(probe):
    outcome = run(probe("""echo '{"before": "write below the limit"}'; echo out of stack >&2; kill -SEGV $$"""))
    assert (outcome.kind, outcome.signal) == ("killed", "SIGSEGV")
    assert outcome.before == "write below the limit"
    assert outcome.message == "out of stack"


def test_survival_after_the_announcement_is_measured(probe):
    outcome = run(probe("""echo '{"before": "write"}'; echo '{"survived": true}'"""))
    assert (outcome.kind, outcome.before, outcome.result) == ("measured", "write", {"survived": True})


def test_unsupported_says_why(probe):
    outcome = run(probe("""echo '{"unsupported": "this kernel has no userfaultfd"}'"""))
    assert (outcome.kind, outcome.message, outcome.result) == ("unsupported", "this kernel has no userfaultfd", {})


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo wrong option >&2; exit 2", "wrong option"),
        ("exit 3", "exit status 3"),
        ("echo no JSON", "no result in its output: no JSON"),
        ("echo '[1, 2]'", "no result in its output: [1, 2]"),
        ("exit 0", "no result in its output: nothing"),
        ("""printf '\\377\\376'""", "no result in its output"),
    ],
)
def test_anything_else_failed_and_says_how(probe, script, message):
    outcome = run(probe(script))
    assert outcome.kind == "failed"
    assert message in outcome.message


def test_long_complaint_is_cut(probe):
    outcome = run(probe("seq 1 5000 >&2; exit 1"))
    assert outcome.kind == "failed"
    assert len(outcome.message) <= 400


def test_program_that_cannot_be_started_is_an_outcome(tmp_path):
    outcome = run(Probe(tmp_path / "nothing"))
    assert outcome.kind == "failed"
    assert "could not be started" in outcome.message


def test_time_limit_ends_the_child_and_its_children(probe, tmp_path):
    pid_file = tmp_path / "pid"
    sleeps = probe(f"sleep 1000 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait")
    seconds = 1
    while True:
        outcome = run(sleeps, seconds_max=seconds)
        assert (outcome.kind, outcome.message) == ("timed out", f"still running after {seconds} s")
        if pid_file.exists():
            break
        seconds *= 2  # a slow machine: the child had not started its own yet
    grandchild = int(pid_file.read_text())
    while is_running(grandchild):
        time.sleep(0.01)


def test_nobody_is_left_when_the_child_ends_before_its_own_children(probe, tmp_path):
    pid_file = tmp_path / "pid"
    outcome = run(probe(f"sleep 1000 & echo $! > {pid_file}; echo '{{\"done\": true}}'"))
    assert outcome.kind == "measured"
    grandchild = int(pid_file.read_text())
    while is_running(grandchild):
        time.sleep(0.01)


def test_child_leaves_no_core_and_is_first_to_go_when_memory_is_short():
    ended = run_child(["/bin/sh", "-c", "ulimit -c; cat /proc/self/oom_score_adj"], seconds_max=30)
    assert ended.stdout.split() == ["0", "1000"]
    assert ended.status == 0


def test_works_without_process_descriptors(monkeypatch):
    def refuse(pid):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert run_child(["/bin/sh", "-c", "exit 7"], seconds_max=30).status == 7
    assert run_child(["/bin/sh", "-c", "sleep 1000"], seconds_max=0.2).timed_out


def test_probe_that_knows_nothing_is_refused(probe):
    with pytest.raises(ProbeError, match="does not say what it knows: exit status 1"):
        probe("exit 1").know()
    with pytest.raises(ProbeError, match="does not say what it knows"):
        probe("""echo '{"strategies": 3}'""").know()


def test_split_stacks_without_their_program_are_unsupported(probe):
    outcome = probe("exit 0").run(Experiment("split", "split"))
    assert outcome.kind == "unsupported"
