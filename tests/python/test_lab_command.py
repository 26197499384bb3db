"""`culm lab` as a user runs it: with the real probe, killed half-way, and with everything missing that can be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="the lab needs culm[lab]")
pytest.importorskip("matplotlib", reason="the lab needs culm[lab]")

from culm import lab
from culm.cli.commands import execute
from culm.lab.probe import Probe
from culm.lab.publish import GENERATOR

COMMAND = [sys.executable, "-m", "culm", "lab"]
SETTINGS = (
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/max_map_count",
    "/sys/kernel/mm/transparent_hugepage/enabled",
)


def run_lab(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=110, check=False, **{"cwd": "/", **options}
    )


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """One small run of everything, with its report."""
    folder = tmp_path_factory.mktemp("lab") / "new" / "report"
    return run_lab("--quick", "--report", str(folder), "--json", str(folder.parent.parent / "lab.json")), folder


def test_small_run_prints_tables_and_writes_a_report(quick_run):
    done, folder = quick_run
    assert done.returncode == 0, done.stderr
    for heading in ("Is it safe?", "How much room", "cost in time", "shrinking cost", "fork cost", "switch cost"):
        assert heading in done.stdout
    assert "not caught" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "lab.json"]
    page = (folder / "index.html").read_text()
    for question in ("Is lazy mmap enough?", "Why not split stacks?", "What does a 10 MB limit really cost?"):
        assert question in page
    assert page.count("<svg") >= 14, "seven plots at two widths"


def test_every_experiment_of_a_small_run_has_an_outcome(quick_run):
    _, folder = quick_run
    written = json.loads((folder / "lab.json").read_text())
    assert written == json.loads((folder.parent.parent / "lab.json").read_text())
    outcomes = written["outcomes"]
    broken = [each for each in outcomes if each["kind"] in ("failed", "timed out", "left out")]
    assert broken == []
    by_name = {(each["experiment"], each["strategy"]): each for each in outcomes}
    assert by_name["overflow-small", "arena"]["kind"] == "killed"
    assert by_name["overflow-small", "arena"]["signal"] == "SIGSEGV"
    assert by_name["overflow-small", "bare-mmap"]["result"]["neighbour_damaged"] is True
    assert by_name["kernel-write", "arena"]["result"]["direct"] == "ok"
    assert written["verdicts"]["fault-handler"]["kernel-write"] == "EFAULT"


def test_picture_is_of_a_fiber_that_grew_and_gave_back(quick_run):
    samples = json.loads((quick_run[1] / "lab.json").read_text())["fiber"]["samples"]
    page = 4096
    for sample in samples:
        assert sum(count for _, count in sample["resident_pages"]) * page == sample["resident_bytes"]
        assert sample["resident_pages"][0][0] == 0, "the page at the base is always there"
    resident = [sample["resident_bytes"] for sample in samples]
    assert max(resident) > 500_000
    assert resident[0] <= 2 * page
    assert samples[-1]["doing"] == "trimmed"
    assert resident[-1] <= 3 * page


def test_report_can_be_made_again_from_json(quick_run, tmp_path):
    _, folder = quick_run
    (tmp_path / "index.html").write_text(f"<html>{GENERATOR} an older one")
    (tmp_path / "mine.txt").write_text("mine")
    done = run_lab("--from", str(folder / "lab.json"), "--report", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").read_text() == (folder / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "lab.json", "mine.txt"]


def test_json_on_standard_output_is_nothing_but_json(capsys):
    assert execute(["lab", "--quick", "--only", "growth/arena", "--json", "-"]) == 0
    said = capsys.readouterr()
    (outcome,) = json.loads(said.out)["outcomes"]
    assert (outcome["experiment"], outcome["strategy"], outcome["kind"]) == ("growth", "arena", "measured")
    assert "growth/arena: measured" in said.err


@pytest.mark.parametrize(
    ("wanted", "count"), [("growth", 11), ("arena", 21), ("idle/arena/64K", 1), ("overflow-small/mmap", 1)]
)
def test_only_takes_either_part(wanted, count, capsys):
    assert execute(["lab", "--quick", "--only", wanted, "--json", "-"]) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert 1 <= len(outcomes) <= count
    assert all(wanted.split("/")[0] in (each["experiment"], each["strategy"]) for each in outcomes)


def test_bad_only_lists_what_there_is():
    done = run_lab("--quick", "--only", "growth/nothing")
    assert done.returncode == 2
    assert "no experiment 'growth/nothing'" in done.stderr
    assert "experiments: overflow-small, overflow-large, kernel-write, growth" in done.stderr
    assert "strategies:  arena, mmap" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_probe_is_explained(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("culm.lab.probe.__file__", str(tmp_path / "probe.py"))
    assert execute(["lab", "--quick"]) == 1
    assert "the program that measures" in (message := capsys.readouterr().err)
    assert "install culm again" in message


def test_machine_that_lacks_features_gets_a_report_that_says_so(monkeypatch, capsys, tmp_path):
    known = {
        "strategies": [
            {"id": "arena", "name": "the arena", "summary": "", "declares": {}, "available": True, "why_not": None},
            {
                "id": "userfaultfd",
                "name": "uffd",
                "summary": "",
                "declares": {},
                "available": False,
                "why_not": "forbidden",
            },
        ],
        "switches": [{"id": "boost", "available": False, "why_not": "Boost.Context is not installed"}],
        "kernel": {"guard": "mprotect", "mappings_max": 65530, "page_bytes": 4096, "overcommit_mode": 0},
    }
    (tmp_path / "bin").mkdir()
    probe = tmp_path / "bin" / "culm-stack-probe"
    unsupported = {"unsupported": "this kernel is too old"}
    probe.write_text(
        f"#!/bin/sh\n[ $1 = strategies ] && echo '{json.dumps(known)}' || echo '{json.dumps(unsupported)}'\n"
    )
    probe.chmod(0o755)
    monkeypatch.setattr("culm.lab.probe.__file__", str(tmp_path / "probe.py"))
    assert execute(["lab", "--quick", "--report", str(tmp_path / "report")]) == 0
    assert "userfaultfd is not available here: forbidden" in capsys.readouterr().out
    page = (tmp_path / "report" / "index.html").read_text()
    for text in (
        "This kernel has no MADV_GUARD_INSTALL",
        "this kernel is too old",
        "forbidden",
        "Boost.Context is not",
    ):
        assert text in page


def test_missing_library_is_explained(monkeypatch, capsys):
    monkeypatch.setattr(lab, "find_spec", lambda name: None if name == "matplotlib" else object())
    assert execute(["lab"]) == 1
    assert "the lab needs matplotlib" in (message := capsys.readouterr().err)
    assert "pip install 'culm[lab]'" in message


def test_missing_command_line_names_the_extra_of_the_lab(run_script):
    done = run_script(
        "import sys\n"
        "sys.modules['click'] = None\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name: None\n"
        "sys.argv = ['culm', 'lab']\n"
        "from culm.cli import main\n"
        "sys.exit(main())\n"
    )
    assert done.returncode == 2
    assert "pip install 'culm[lab]'" in done.stderr


def test_report_that_cannot_be_written_is_refused_before_anything_is_run(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    for target in (file, file / "deeper", Path("/proc/nowhere")):
        assert execute(["lab", "--quick", "--report", str(target)]) == 1
        assert f"--report {target}: nothing can be written there" in (message := capsys.readouterr().err)
        assert "overflow-small" not in message, "nothing was run"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_page_of_somebody_else_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "index.html").write_text("<html>my home page")
    assert execute(["lab", "--quick", "--report", str(tmp_path)]) == 1
    assert "is no report of the lab" in capsys.readouterr().err
    assert (tmp_path / "index.html").read_text() == "<html>my home page"


@pytest.mark.parametrize("target", ["/", "/nowhere/lab.json"])
def test_json_file_that_cannot_be_written(target, capsys):
    assert execute(["lab", "--quick", "--json", target]) == 1
    assert f"--json {target}" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [("{", "it is no JSON"), ("{}", "no list of outcomes")])
def test_other_file_is_no_earlier_run(tmp_path, text, message, capsys):
    path = tmp_path / "lab.json"
    path.write_text(text)
    assert execute(["lab", "--from", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_earlier_run_and_new_run_exclude_each_other(tmp_path, capsys):
    (tmp_path / "lab.json").write_text("{}")
    assert execute(["lab", "--full", "--from", str(tmp_path / "lab.json")]) == 2
    assert "--from shows an earlier run" in capsys.readouterr().err


def children_of(pid: int) -> list[int]:
    """Direct children, and those of theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [grandchild for child in found for grandchild in children_of(child)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def settings() -> list[str | None]:
    return [Path(path).read_text() if Path(path).exists() else None for path in SETTINGS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_lab_killed_half_way_leaves_nothing(tmp_path, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    before = settings()
    # Long enough that some child is always alive.
    process = subprocess.Popen(
        [*COMMAND, "--full", "--report", str(tmp_path / "report"), "--json", str(tmp_path / "lab.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stderr is not None
        while "growth/" not in process.stderr.readline():
            assert process.poll() is None
        while not (children := children_of(process.pid)):
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    while any(is_running(child) for child in children):
        time.sleep(0.01)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert "interrupted" in errors
        assert "Traceback" not in errors
    assert sorted(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []
    assert settings() == before


def test_probe_is_the_one_of_this_installation():
    probe = Probe.installed()
    known = probe.know()
    assert {"arena", "mmap", "bare-mmap"} <= {each["id"] for each in known["strategies"]}
    assert known["kernel"]["page_bytes"] == os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_whole_run_takes_less_than_two_minutes_and_leaves_nothing_out(tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [*COMMAND, "--report", str(tmp_path)], capture_output=True, text=True, check=False, timeout=119
    )
    print(f"{time.monotonic() - started:.0f} s")
    assert done.returncode == 0, done.stderr
    outcomes = json.loads((tmp_path / "lab.json").read_text())["outcomes"]
    assert [each for each in outcomes if each["kind"] not in ("measured", "unsupported", "killed")] == []
