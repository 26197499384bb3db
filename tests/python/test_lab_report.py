"""The report says what was measured, whatever that was: the branches that this machine does not take, too."""

import io
import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("jinja2", reason="the lab needs culm[lab]")
pytest.importorskip("matplotlib", reason="the lab needs culm[lab]")

from lab_support import LIMIT, caught, findings, outcome
from rich.console import Console

from culm.lab.answers import all_answers
from culm.lab.answers.summary import three_sentences
from culm.lab.findings import Findings, FormatError
from culm.lab.page import render
from culm.lab.terminal import print_findings

VOID = {"meta", "link", "br", "hr", "img", "input", "path", "use", "rect"}


class Checker(HTMLParser):
    """Finds elements that are not closed, ids used twice, and links that lead nowhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.feed(page)
        self.problems += [f"<{tag}> is not closed" for tag in self.open]
        self.problems += [f"id {each} twice" for each in set(self.ids) if self.ids.count(each) > 1]
        self.problems += [f"#{each} is nowhere" for each in self.targets if each not in self.ids]

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href", "src"):
                (self.targets if value.startswith("#") else self.sources).append(value.removeprefix("#"))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> does not fit")


def texts(run: Findings, identifier: str) -> str:
    answer = next(each for each in all_answers(run) if each.id == identifier)
    return " ".join([answer.short, *answer.paragraphs])


def usual() -> list:
    """The outcomes of a machine like most others."""
    return [
        caught("overflow-small", "arena"),
        caught("overflow-small", "mmap"),
        outcome("overflow-small", "bare-mmap", neighbour_damaged=True, survived=True),
        outcome("overflow-large", "mmap", neighbour_damaged=True, survived=True),
        caught("overflow-large", "arena"),
        outcome("kernel-write", "arena", called="ok", direct="ok", tail="ok"),
        outcome("kernel-write", "fault-handler", called="ok", direct="EFAULT", tail="EFAULT"),
        outcome("growth", "arena", ns_per_page=1450.0, plain_mmap_ns_per_page=1400.0, ratio=1.03),
        outcome("growth", "fault-handler", ns_per_page=5600.0, plain_mmap_ns_per_page=1400.0, ratio=4.0),
        outcome("ceiling", "arena", stacks=100_000, stopped_by="count", options={"count": 100_000}),
        outcome("ceiling", "mmap", stacks=32_743, stopped_by="error", errno_name="ENOMEM"),
        outcome("idle", "arena", rss_bytes_per_stack=4096.0, page_table_bytes_per_stack=4136.0),
        outcome("idle", "copying", rss_bytes_per_stack=1100.0, page_table_bytes_per_stack=8.0, used_bytes=1024),
        outcome("lifecycle", "arena", create_ns=900.0, first_touch_ns=2000.0, reuse_ns=7.0, destroy_ns=1500.0),
        outcome("lifecycle", "mmap", create_ns=3600.0, first_touch_ns=2900.0, mappings_per_stack=2.0),
        outcome("shrink", "arena", single_ns_per_stack=7400.0, single_ns_per_page=528.0, empty_ns_per_stack=800.0,
                batches=[{"ranges": 16, "ns_per_stack": 3000.0, "ns_per_page": 214.0}], bytes_returned_share=1.0),
        outcome("fork", "arena", stacks=1000, fork_ns=3.0e6, fork_ns_per_stack=3000.0, parent_cow_ns_per_page=1500.0,
                has_guard=True, guard_survives=True, child_signal="SIGSEGV", child_goes_on=True),
        outcome("growsdown", "growsdown", grew_bytes=8 << 20, stopped_by="SIGSEGV", neighbour_damaged=True,
                stack_guard_gap_bytes=1 << 20),
        *(outcome("switch", "arena", ns_per_switch=ns, options={"switch": "assembly", "stride": stride, "count": count})
          for stride, count, ns in [("odd", 10, 4.0), ("odd", 1000, 9.0), ("power-of-two", 1000, 40.0)]),
    ]  # fmt: skip


SAMPLES = [
    {"doing": "has started", "used_bytes": 2600, "resident_bytes": 4096, "resident_pages": [[0, 1]]},
    {"doing": "recurses", "used_bytes": 78_000, "resident_bytes": 81_920, "resident_pages": [[0, 12], [13, 8]]},
    {"doing": "is back at the base", "used_bytes": 2600, "resident_bytes": 81_920, "resident_pages": [[0, 20]]},
    {"doing": "trimmed", "used_bytes": 2600, "resident_bytes": 8192, "resident_pages": [[0, 2]]},
]


def all_ended(kind: str) -> Findings:
    """The usual experiments, every one of which ended in the same way."""
    signal = "SIGBUS" if kind == "killed" else None
    return findings(
        *(
            outcome(
                each.experiment, each.strategy, kind, options=dict(each.options), signal=signal, message="<why> & so"
            )
            for each in usual()
        )
    )


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(findings(*usual(), fiber={"samples": SAMPLES, "page_bytes": 4096}), id="usual"),
        pytest.param(findings(), id="nothing"),
        pytest.param(findings(fiber={"failure": 'it <died> & was "quoted" with `ticks`'}), id="fiber-failed"),
        *(
            pytest.param(all_ended(kind), id=kind)
            for kind in ("unsupported", "failed", "timed out", "left out", "killed", "measured")
        ),
        pytest.param(findings(kernel={"guard": "mprotect", "overcommit_mode": 2, "thp": None}), id="old-kernel"),
    ],
)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_page_and_tables_can_be_made_of_anything(run, width):
    with open("/dev/null", "w") as nowhere:
        print_findings(run, Console(file=nowhere, width=width))
    if width != 80:
        return  # the page does not depend on the terminal
    page = render(run)
    checked = Checker(page)
    assert checked.problems == []
    assert checked.sources == ["lab.json"], "the page needs nothing but itself"
    assert "None" not in re.sub(r"<svg.*?</svg>|None ended|None of the", "", page, flags=re.DOTALL)
    assert "<script" not in page
    assert "<why>" not in page


def test_tables_fit_the_terminal():
    for width in (80, 120):
        console = Console(width=width, record=True, file=io.StringIO())
        print_findings(findings(*usual()), console)
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert any("caught" in line and "works" in line for line in lines), "verdicts are words"


def test_summary_names_what_is_best_and_what_is_wrong_with_the_rest():
    which, cost, rest = three_sentences(findings(*usual()))
    assert "`arena` passed every test of safety" in which
    assert "1.4 µs (1.03 times a plain mapping)" in cost
    assert "at least 100,000" in cost
    assert "1 lets a stack that runs over damage its neighbour (`bare-mmap`)" in rest
    assert "1 makes a system call fail that writes into new stack (`fault-handler`)" in rest
    assert "1 ends at some number of stacks (`mmap`)" in rest


def test_summary_admits_a_flaw_of_culm_itself():
    run = findings(outcome("ceiling", "arena", stacks=16_000, stopped_by="error", errno_name="ENOMEM"))
    which, cost = three_sentences(run)
    assert "flaw: the number of stacks has a ceiling" in which
    assert "at most 16,000" in cost


def test_summary_of_nothing_is_empty():
    assert three_sentences(findings()) == []


def test_lazy_mmap_is_judged_by_what_happened():
    assert "For safety, no" in texts(findings(*usual()), "lazy-mmap")
    lucky = findings(caught("overflow-small", "bare-mmap"))
    assert "promises no such thing" in texts(lucky, "lazy-mmap")
    assert "could not be measured here: no room" in texts(
        findings(outcome("overflow-small", "bare-mmap", "unsupported", message="no room")), "lazy-mmap"
    )


def test_committing_by_hand_is_not_called_dearer_when_it_is_not():
    run = findings(
        outcome("growth", "arena", ns_per_page=1450.0),
        outcome("growth", "fault-handler", ns_per_page=1400.0),
    )
    assert "no dearer than letting the kernel do it" in texts(run, "lazy-mmap")
    assert "4.0 times what the kernel takes" not in texts(run, "lazy-mmap")


def test_report_of_an_overflow_is_quoted_by_its_first_line():
    report = "culm: a fiber ran out of stack.\nC frames, innermost first:\n  somewhere(+0x1803c)"
    met = outcome("overflow-small", "arena", "killed", before="write", signal="SIGSEGV", message=report)
    text = texts(findings(met), "guards")
    assert "as it should be, and wrote: `culm: a fiber ran out of stack.`" in text
    assert "somewhere" not in text


def test_kernel_without_guard_markers_is_told():
    text = texts(findings(kernel={"guard": "mprotect"}), "guards")
    assert "no MADV_GUARD_INSTALL" in text
    assert "65,530 mappings" in text


def test_ceilings_by_mappings_and_by_memory_are_told_apart():
    one_block = outcome("ceiling", "malloc", stacks=2_377, stopped_by="error", errno_name="ENOMEM")
    text = texts(findings(*usual(), one_block), "mappings")
    assert "`mmap` with two mappings for each stack at 32,743" in text
    assert "`malloc` ended at 2,377 stacks with ENOMEM too, but not for want of mappings" in text


def test_kernel_writes_that_work_everywhere_are_not_called_wrong():
    fine = findings(outcome("kernel-write", "arena", called="ok", direct="ok", tail="ok"))
    assert texts(fine, "kernel-write").startswith("Yes, with every strategy")
    assert "EFAULT" not in texts(fine, "kernel-write")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"grew_bytes": 8 << 20, "neighbour_damaged": True}, "It grows, and does not stop"),
        ({"grew_bytes": 8 << 20, "neighbour_damaged": False}, "here it stopped before the neighbour"),
        ({"grew_bytes": 0, "neighbour_damaged": False}, "did not grow at all"),
    ],
)
def test_growsdown(result, text):
    assert text in texts(findings(outcome("growsdown", "growsdown", **result)), "growsdown")


def test_split_stacks_measured_and_not():
    hot = outcome("split", "split", ns_per_hot_split_call=800.0, ns_per_call_in_segment=3.0, linker="bfd")
    assert "costs 800 ns here instead of 3 ns" in texts(findings(hot), "split")
    cold = outcome("split", "split", ns_per_hot_split_call=3.1, ns_per_call_in_segment=3.0)
    assert "is cheap here" in texts(findings(cold), "split")
    absent = findings(missing={"split": "the compiler that built culm has no -fsplit-stack"})
    assert "the compiler that built culm has no -fsplit-stack" in texts(absent, "split")


def test_batches_that_save_nothing_are_not_praised():
    run = findings(
        outcome("shrink", "arena", single_ns_per_stack=1000.0, batches=[{"ranges": 16, "ns_per_stack": 1100.0}])
    )
    assert "save nothing" in texts(run, "shrink")
    assert "serves many" in texts(findings(outcome("shrink", "arena", single_ns_per_stack=1000.0)), "shrink")


def test_strides_that_make_no_difference():
    options = [{"switch": "assembly", "stride": stride, "count": 100} for stride in ("odd", "power-of-two")]
    run = findings(*(outcome("switch", "arena", ns_per_switch=5.0, options=each) for each in options))
    assert "makes no difference on this machine" in texts(run, "switching")
    assert "5.9 times" not in texts(run, "switching")


def test_strict_overcommit_is_explained_or_said_to_be_in_force():
    assert "does not switch it on" in texts(findings(), "overcommit")
    assert "It is in force here" in texts(findings(kernel={"overcommit_mode": 2}), "overcommit")
    assert "could not be found out" in texts(findings(kernel={"overcommit_mode": None}), "overcommit")


def test_picture_says_what_the_fiber_did():
    text = texts(findings(fiber={"samples": SAMPLES, "page_bytes": 4096}), "fiber")
    assert "It grew to 80 KB, and gave back all but 8 KB." in text
    assert "no picture here: the probe died" in texts(findings(fiber={"failure": "the probe died"}), "fiber")


def test_what_others_do_is_marked_as_read():
    answer = next(each for each in all_answers(findings(*usual())) if each.id == "others")
    assert answer.read_not_measured
    assert "with 1 KB used, occupies 1.1 KB" in answer.paragraphs[-1]


def test_json_and_back():
    run = findings(*usual(), fiber={"samples": SAMPLES, "page_bytes": 4096})
    assert Findings.read(run.as_dict()).as_dict() == run.as_dict()
    assert run.number("idle", "arena", "rss_bytes_per_stack", limit=LIMIT) == 4096


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "no list of outcomes"),
        ({"benchmarks": []}, "no list of outcomes"),
        ({**findings().as_dict(), "format": 99}, "format is 99; this culm reads format 1"),
        ({**findings().as_dict(), "outcomes": [{"experiment": "growth"}]}, "damaged"),
        ({**findings().as_dict(), "knowledge": {"strategies": [{"name": "no id"}]}}, "damaged"),
    ],
)
def test_other_json_is_refused(document, message):
    with pytest.raises(FormatError, match=message):
        Findings.read(document)


def test_locked_memory_and_huge_pages_are_judged_by_what_was_measured():
    harmless = findings(
        outcome("mlock", "arena", madv_dontneed="ok", rss_bytes=32768, rss_bytes_after_shrink=8192),
        outcome("thp", "arena", as_built_rss_bytes_per_stack=4096.0, allowed_rss_bytes_per_stack=4096.0),
    )
    assert "Nothing that was noticed" in texts(harmless, "locked")
    swollen = findings(
        outcome("mlock", "arena", madv_dontneed="EINVAL"),
        outcome("thp", "bare-mmap", as_built_rss_bytes_per_stack=4096.0, allowed_rss_bytes_per_stack=float(2 << 20)),
    )
    assert "not given back by the usual call and huge pages make" in texts(swollen, "locked")
    assert "takes 2 MB instead of 4 KB, 512 times" in texts(swollen, "locked")


def test_terminal_gives_the_answers_of_a_whole_run_only():
    for run, is_whole in ((findings(*usual()), True), (findings(usual()[0]), False)):
        console = Console(width=100, record=True, file=io.StringIO())
        print_findings(run, console)
        assert ("Is lazy mmap enough?" in console.export_text()) is is_whole
