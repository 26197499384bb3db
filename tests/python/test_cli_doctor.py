"""`culm doctor`: its arithmetic against figures measured on real stacks, and its two forms of output."""

import io
import json
import subprocess
import sys

import pytest

pytest.importorskip("rich", reason="the command line needs culm[cli]")

from rich.console import Console

from culm.cli.doctor import capacity_of, examine
from culm.cli.doctor_report import print_report
from culm.cli.figures import bytes_text, count_text

PAGE = 4096
KERNEL = {"page_bytes": PAGE, "guard": "madvise", "overcommit_mode": 0, "mappings_max": 65530}
LIMITS = {
    "memory_available_bytes": 8 << 30,
    "address_space_bytes": None,
    "mappings_in_use": 530,
    "commit_limit_bytes": 4 << 30,
    "committed_bytes": 1 << 30,
}


def stack_class(limit_bytes):
    pages = limit_bytes // PAGE + 1
    return {"name": bytes_text(limit_bytes), "limit_bytes": limit_bytes, "stride_bytes": (pages | 1) * PAGE}


@pytest.mark.parametrize(
    ("limit_bytes", "measured_page_tables"),
    [(64 << 10, 128), (256 << 10, 513), (1 << 20, 2052), (10 << 20, 4136)],
)
def test_idle_cost_is_close_to_what_was_measured(limit_bytes, measured_page_tables):
    capacity = capacity_of(stack_class(limit_bytes), KERNEL, LIMITS)
    record = 512
    assert capacity.idle_bytes - record == pytest.approx(PAGE + measured_page_tables, rel=0.01)


def test_memory_bounds_fibers_with_kernel_guards():
    capacity = capacity_of(stack_class(10 << 20), KERNEL, LIMITS)
    assert capacity.bound == "memory"
    assert capacity.fibers == (8 << 30) // capacity.idle_bytes


def test_mappings_bound_fibers_with_mprotect_guards():
    capacity = capacity_of(stack_class(64 << 10), {**KERNEL, "guard": "mprotect"}, LIMITS)
    assert (capacity.bound, capacity.fibers) == ("mappings", 32500)


def test_strict_overcommit_bounds_fibers_by_what_is_charged_at_first_and_by_mappings():
    strict = {**KERNEL, "overcommit_mode": 2, "mappings_max": 1 << 20}
    capacity = capacity_of(stack_class(10 << 20), strict, LIMITS)
    assert (capacity.bound, capacity.fibers) == ("overcommit", (3 << 30) // (64 << 10))
    capacity = capacity_of(stack_class(10 << 20), {**strict, "mappings_max": 65530}, LIMITS)
    assert (capacity.bound, capacity.fibers) == ("mappings", 65530 // 4)


def test_address_space_limit_bounds_fibers():
    capacity = capacity_of(stack_class(10 << 20), KERNEL, {**LIMITS, "address_space_bytes": 1 << 30})
    assert (capacity.bound, capacity.fibers) == ("address space", 102)


def test_this_machine_can_be_examined_and_reported():
    diagnosis = examine()
    assert all(capacity.fibers > 0 for capacity in diagnosis.capacities)
    output = io.StringIO()
    print_report(diagnosis, Console(file=output, width=160))
    for capacity in diagnosis.capacities:
        assert count_text(capacity.fibers) in output.getvalue()


def test_json_is_complete():
    done = subprocess.run(
        [sys.executable, "-m", "culm", "doctor", "--json"], capture_output=True, text=True, timeout=60, check=True
    )
    content = json.loads(done.stdout)
    assert set(content) == {"versions", "kernel", "limits", "capacities", "advice"}
    assert content["kernel"]["guard"] in ("madvise", "mprotect")
    assert content["versions"]["context_switch"] in ("x86_64_sysv", "aarch64_aapcs", "ucontext")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KB"),
        (1536, "1.5 KB"),
        (10 << 20, "10 MB"),
        (None, "none"),
        (3 << 50, "3072 TB"),
    ],
)
def test_bytes_are_written_with_binary_units(count, text):
    assert bytes_text(count) == text
