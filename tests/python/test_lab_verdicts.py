"""What outcomes mean, and whether they agree with what a strategy declares."""

import pytest

pytest.importorskip("jinja2", reason="the lab needs culm[lab]")
pytest.importorskip("matplotlib", reason="the lab needs culm[lab]")

from lab_support import caught, findings, outcome

from culm.cli.figures import duration_text, ratio_text
from culm.lab import verdict
from culm.lab.plan import PLANS, fitted


def test_overflow_that_kills_after_the_announcement_is_caught():
    found = verdict.overflow(caught("overflow-small", "arena"))
    assert (found.text, found.tone) == ("caught", "good")
    assert "killed by SIGSEGV, as it should be" in found.reason


def test_overflow_reported_by_abort_is_caught_too():
    assert verdict.overflow(caught("overflow-small", "arena", "SIGABRT")).text == "caught"


def test_death_before_the_overflow_decides_nothing():
    found = verdict.overflow(outcome("overflow-small", "arena", "killed", signal="SIGSEGV"))
    assert (found.text, found.tone) == ("failed", "none")


def test_damage_is_not_caught():
    survived = outcome("overflow-small", "malloc", neighbour_damaged=True, survived=True, giving_back_signal="SIGABRT")
    found = verdict.overflow(survived)
    assert (found.text, found.tone) == ("not caught", "bad")
    assert "SIGABRT" in found.reason


def test_survival_without_damage_is_told_apart():
    assert verdict.overflow(outcome("overflow-small", "split", neighbour_damaged=False)).text == "not noticed"


@pytest.mark.parametrize(
    ("kind", "text"), [("unsupported", "does not apply"), ("timed out", "timed out"), ("left out", "left out")]
)
def test_what_gave_no_result_says_so(kind, text):
    for judge in (verdict.overflow, verdict.kernel_write, verdict.ceiling, verdict.fork_guard):
        found = judge(outcome("any", "arena", kind, message="because"))
        assert (found.text, found.reason) == (text, "because")
        assert judge(None) == verdict.UNKNOWN


def test_kernel_write_needs_all_ways_to_work():
    assert verdict.kernel_write(outcome("kernel-write", "arena", called="ok", direct="ok", tail="ok")).text == "works"
    found = verdict.kernel_write(outcome("kernel-write", "fault-handler", called="ok", direct="short", tail="EFAULT"))
    assert (found.text, found.tone) == ("EFAULT", "bad")
    assert "read() without one: short" in found.reason


def test_kernel_write_that_was_not_tried_counts_neither_way():
    tried = outcome("kernel-write", "arena", called="ok", direct="not tried", tail="not tried")
    assert verdict.kernel_write(tried).text == "works"
    assert verdict.kernel_write(outcome("kernel-write", "arena", called="not tried")) == verdict.UNKNOWN


def test_ceiling_is_a_number_with_its_error():
    ended = outcome("ceiling", "mmap", stacks=32743, stopped_by="error", errno_name="ENOMEM")
    assert verdict.ceiling(ended).text == "32,743, ENOMEM"
    assert verdict.ceiling(outcome("ceiling", "arena", stacks=100000, stopped_by="count")).text == "100,000 or more"
    assert verdict.ceiling(outcome("ceiling", "arena", "killed", signal="SIGKILL")).text == "killed by SIGKILL"


def test_guard_after_fork():
    assert verdict.fork_guard(outcome("fork", "arena", guard_survives=True, has_guard=True)).text == "survives"
    assert verdict.fork_guard(outcome("fork", "arena", guard_survives=False, has_guard=True)).text == "gone"
    assert verdict.fork_guard(outcome("fork", "malloc", guard_survives=False, has_guard=False)).text == "no guard"


def test_differences_from_what_is_declared_are_found():
    declares = {
        "arena": {"catches_small_overflow": True, "kernel_may_write": "yes", "guard_survives_fork": True},
        "mmap": {"catches_small_overflow": True, "kernel_may_write": "when called through a function"},
    }
    run = findings(
        outcome("overflow-small", "arena", neighbour_damaged=True),
        outcome("kernel-write", "arena", called="EFAULT", direct="EFAULT", tail="EFAULT"),
        outcome("fork", "arena", guard_survives=False, has_guard=True),
        caught("overflow-small", "mmap"),
        outcome("kernel-write", "mmap", called="ok", direct="EFAULT", tail="EFAULT"),
        declares=declares,
    )
    assert [(each.strategy, each.declared, each.measured) for each in verdict.differences(run)] == [
        ("arena", "caught", "not caught"),
        ("arena", "works", "fails"),
        ("arena", "survives", "gone"),
    ]


def test_same_reason_is_said_once():
    failed = [
        outcome("growth", each, "failed", message="no memory", command=f"probe {each}") for each in ("a", "b", "c")
    ]
    assert verdict.unusual(findings(*failed)) == ["probe a and 2 more failed: no memory"]
    refused = [outcome("fork", each, "unsupported", message="fork was refused") for each in ("malloc", "mmap")]
    assert verdict.inapplicable(findings(*refused)) == ["fork with malloc, mmap: fork was refused"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (0.42, "0.4 ns"),
        (7, "7 ns"),
        (9.96, "10 ns"),
        (870.2, "870 ns"),
        (999.6, "1.0 µs"),
        (1449, "1.4 µs"),
        (62_300, "62 µs"),
        (16_000_000, "16 ms"),
        (2.5e9, "2.5 s"),
        (7.2e12, "7200 s"),
    ],
)
def test_durations_have_two_digits_that_mean_something(nanoseconds, text):
    assert duration_text(nanoseconds) == text


@pytest.mark.parametrize(("ratio", "text"), [(1.0449, "1.04"), (3.72, "3.7"), (41.2, "41"), (1234.5, "1,234")])
def test_ratios(ratio, text):
    assert ratio_text(ratio) == text


def test_no_more_stacks_than_half_the_memory_holds():
    gigabyte = 1 << 30
    assert fitted(PLANS["full"], 1024 * gigabyte).ceiling_count == 1_000_000
    assert fitted(PLANS["full"], 4 * gigabyte).ceiling_count * 16_384 <= 2 * gigabyte
    assert fitted(PLANS["standard"], 0).ceiling_count == 1_000
