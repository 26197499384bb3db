"""What the benchmarks say about their measurements: ratios, spreads, verdicts, what is left out.

The workloads are only run, with few fibers; how fast they are is not looked at.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import compare
import measuring
import workloads
from measuring import Bound
from revisions import Revision

BASE = Revision("base", "", Path())
HEAD = Revision("head", "", Path())


def samples(**figures):
    return {name: {"BASE": base, "HEAD": head} for name, (base, head) in figures.items()}


def test_ratio_and_spread_are_those_of_the_rounds_and_not_of_the_medians():
    measured = samples(switch=([100.0, 200.0, 100.0], [110.0, 190.0, 105.0]))
    assert compare.rows(measured) == [["switch", "ns", "100", "110", "1.050", "0.950", "1.100"]]


@pytest.mark.parametrize(("head", "word"), [([103.0, 300.0, 103.0], "reached"), ([104.0, 100.0, 104.0], "MISSED ")])
def test_bound_against_the_base_is_judged_by_the_median_ratio(head, word):
    lines = measuring.verdicts(compare.BOUNDS, samples(switch=([100.0] * 3, head)), "HEAD")
    assert [line.split(": ")[0] for line in lines] == [f"{word}  switch"]
    assert "at most 1.03 times BASE" in lines[0]


@pytest.mark.parametrize(("timed", "word"), [(115.0, "reached"), (116.0, "MISSED ")])
def test_wait_with_a_timer_is_judged_against_the_one_without_on_head_alone(timed, word):
    measured = samples(fd_wait=([1.0], [100.0]), fd_wait_timer=([1000.0], [timed]))
    lines = measuring.verdicts(compare.BOUNDS, measured, "HEAD")
    assert lines == [
        f"{word}  fd_wait_timer: at most 1.15 times fd_wait: {timed / 100:.4g} ({timed / 100:.4g} to {timed / 100:.4g})"
    ]


def test_bound_without_another_figure_is_judged_by_the_median_itself():
    lines = measuring.verdicts([Bound("parked", 5000)], {"parked": {"culm": [4000.0, 5001.0, 9000.0]}}, "culm")
    assert lines == ["MISSED   parked: at most 5,000: 5,001 (4,000 to 9,000)"]


def test_every_bound_of_the_comparison_names_a_workload():
    assert {bound.figure for bound in compare.BOUNDS} <= set(measuring.WORKLOADS)


@pytest.mark.parametrize("name", measuring.WORKLOADS)
def test_every_workload_of_the_table_is_a_function(name):
    workload = measuring.WORKLOADS[name]
    for library in workload.libraries:
        assert callable(getattr(workloads, workload.function(name, library)))


def test_round_measures_both_and_leaves_out_what_one_of_them_lacks(capfd):
    def figures(revision: Revision) -> dict[str, float]:
        return {"common": 2.0, "old": 1.0} if revision is BASE else {"common": 3.0}

    def new_only(revision: Revision) -> dict[str, float]:
        if revision is BASE:
            raise measuring.LeftOutError("there is no such call")
        return {"new": 1.0}

    parts = [compare.Part("figures", figures), compare.Part("new", new_only)]
    kept = parts[:1]
    measured: measuring.Samples = {}
    compare.one_round(parts, [("HEAD", HEAD), ("BASE", BASE)], measured)
    assert measured == samples(common=([2.0], [3.0]))
    assert parts == kept
    error = capfd.readouterr().err
    assert "left out: new (there is no such call)" in error
    assert "left out: old (only one of the revisions has it)" in error


@pytest.mark.parametrize("workload", ["yield_2", "echo"])
def test_workload_that_needs_what_the_library_lacks_is_left_out(workload, tmp_path, monkeypatch):
    (tmp_path / "culm.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(measuring.LeftOutError, match="has no attribute"):
        measuring.measure(workload, "culm", Path("not reached"), 0)


@pytest.mark.parametrize(
    "call",
    [
        "switch_culm(3, 10)",
        "yield_culm(3, 10)",
        "spawn_culm(5, 2)",
        "spawn_1_culm(3)",
        "timers_culm(20, 3)",
        "fd_wait_culm(None, 5)",
        "fd_wait_culm(3600.0, 5)",
    ],
)
def test_workload_runs_to_its_end(call):
    command = [sys.executable, "-c", f"import workloads; print(workloads.{call})"]
    done = subprocess.run(command, cwd=measuring.HERE, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) > 0
