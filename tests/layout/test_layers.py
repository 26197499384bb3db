"""python -> extension -> runtime -> core, and lab -> core: each layer sees only the public headers of those below it.

A layer is a top folder. Its sources may include their own private headers, its own public ones, and the public ones of
the layers below (the lab's strategies are written like core's, and may include the private headers of core as well);
and what belongs to the operating system, the CPU, the interpreter and the sanitizers stays where the design puts it.
"""

import re
from pathlib import PurePosixPath

import pytest

SEES = {
    "core": {"core"},
    "runtime": {"core", "runtime"},
    "extension": {"core", "runtime", "extension"},
    "lab": {"core"},
}
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)


def layer_of(path: str) -> str:
    return path.split("/", 1)[0]


def public_headers(product) -> dict[str, str]:
    """Name in an include -> layer."""
    return {
        file.path.split("/include/", 1)[1].removesuffix(".in"): layer_of(file.path)
        for file in product
        if "/include/" in file.path
    }


def includes(file):
    return [(match[1], match[2]) for match in INCLUDE.finditer(file.code)]


def test_sources_include_only_own_headers_and_public_ones_from_below(product):
    public = public_headers(product)
    paths = {file.path for file in product}
    problems = []
    for file in product:
        own = layer_of(file.path)
        for quote, name in includes(file):
            if name in public:
                if public[name] not in SEES[own]:
                    problems.append(f"{file.path} includes {name} of {public[name]}, which {own} does not see")
            elif quote == '"' and not private_header(file.path, name, paths):
                problems.append(f"{file.path} includes {name}, which is no header of {own} and no public header")
    assert not problems, "\n".join(problems)


def private_header(path: str, name: str, paths: set[str]) -> bool:
    """Whether `name` means a private header of the same layer."""
    if ".." in PurePosixPath(name).parts:
        return False
    candidates = [f"{PurePosixPath(path).parent}/{name}", f"{layer_of(path)}/src/{name}", f"{layer_of(path)}/{name}"]
    if path.startswith("lab/strategies/"):
        candidates.append(f"core/src/{name}")
    return any(candidate in paths for candidate in candidates)


def test_public_headers_include_only_public_headers(product):
    public = public_headers(product)
    problems = [
        f"{file.path} includes {name}"
        for file in product
        if file.is_public_header
        for quote, name in includes(file)
        if quote == '"' and name not in public
    ]
    assert not problems, "\n".join(problems)


def test_what_tests_put_in_the_place_of_the_machine_is_not_used_by_the_product(product):
    header = "culm/testing/overrides.hpp"
    defines_them = {f"core/src/stack/{name}.cpp" for name in ("arena", "kernel", "memory_pressure")}
    offers_them_to_tests = {"extension/overrides.cpp"}
    included_by = {file.path for file in product if any(name == header for _, name in includes(file))}
    assert included_by == defines_them | offers_them_to_tests


def test_no_source_file_is_included(product):
    problems = [
        f"{file.path}: {name}" for file in product for _, name in includes(file) if name.endswith((".cpp", ".c"))
    ]
    assert not problems, "\n".join(problems)


def test_python_headers_are_included_in_the_extension_only(product):
    problems = [
        f"{file.path} includes {name}"
        for file in product
        if layer_of(file.path) != "extension"
        for _, name in includes(file)
        if re.match(r"(Python|pycore_\w+|py\w+|structmember|frameobject|datetime)\.h$|cpython/|internal/", name)
    ]
    assert not problems, "\n".join(problems)


def test_interpreter_internals_are_included_in_one_folder_only(product):
    problems = [
        f"{file.path} includes {name}"
        for file in product
        if not file.path.startswith("extension/interpreter/")
        for _, name in includes(file)
        if re.search(r"(^|/)pycore_|^(cpython|internal)/", name)
    ]
    assert not problems, "\n".join(problems)


CONDITIONAL = r"^\s*#\s*(if|ifdef|ifndef|elif|elifdef|elifndef)\b.*"
CPU = r"\b(__x86_64__|__i386__|__amd64__|__aarch64__|__arm__|__riscv|__powerpc64__|__s390x__|_M_X64|_M_ARM64|__ILP32__)"
SYSTEM = r"\b(__linux__|__gnu_linux__|_WIN32|_WIN64|__APPLE__|__MACH__|__FreeBSD__|__unix__|__GLIBC__|__ANDROID__)"
INTERPRETER = (
    r"\b(PY_VERSION_HEX|PY_MAJOR_VERSION|PY_MINOR_VERSION|PY_MICRO_VERSION|Py_BUILD_CORE\w*|Py_GIL_DISABLED)\b"
)
SANITIZER = (
    r"(__SANITIZE_\w+|\b__has_feature\b|__(asan|tsan|ubsan|lsan|msan|sanitizer)_\w+|CULM_INSTRUMENTED|"
    r"VALGRIND_\w+|\bRUNNING_ON_VALGRIND\b)"
)


@pytest.mark.parametrize(
    ("what", "pattern", "places"),
    [
        pytest.param("a CPU conditional", CONDITIONAL + CPU, ("core/src/context/",), id="cpu"),
        pytest.param(
            "an operating system conditional",
            CONDITIONAL + SYSTEM,
            ("core/src/os/", "runtime/src/reactor/", "runtime/src/clock/", "runtime/src/interpose/"),
            id="system",
        ),
        pytest.param("a CPython version or build", INTERPRETER, ("extension/interpreter/",), id="cpython"),
        pytest.param(
            "a sanitizer",
            SANITIZER,
            ("core/src/instrument/", "core/include/culm/instrument.hpp", "core/include/culm/config.hpp.in"),
            id="sanitizer",
        ),
        pytest.param(
            "a call that manages memory mappings or signal actions",
            r"(?<![\w.>])(::)?(mmap|mmap64|munmap|madvise|process_madvise|sigaction|sigaltstack)\s*\((?!\))",
            # The lab asks what the kernel answers to a bare call, in one file; its strategies have one for theirs.
            ("core/src/os/", "lab/raw_calls.cpp", "lab/strategies/linux_growth.cpp"),
            id="memory-and-signals",
        ),
        pytest.param(
            "mprotect",
            r"(?<![\w.>])(::)?mprotect\s*\(",
            ("core/src/os/", "runtime/src/interpose/"),
            id="mprotect",
        ),
    ],
)
def test_stays_in_its_place(product, what, pattern, places):
    found = [hit for file in product if not file.path.startswith(places) for hit in file.lines_matching(pattern)]
    assert not found, f"{what} outside {', '.join(places)}:\n" + "\n".join(found)


# Included as <...>, and not the operating system's. Everything else is: sys/epoll.h, linux/futex.h, unistd.h ...
OTHER_HEADER = re.compile(
    r"[a-z_0-9]+"  # of the C++ standard
    r"|(assert|ctype|errno|float|inttypes|limits|locale|math|setjmp|std\w+|string|time|uchar|wchar)\.h"  # of C
    r"|cxxabi\.h|sanitizer/.*|valgrind/.*|boost/.*"
    r"|(Python|datetime|frameobject|opcode\w*|structmember|structseq)\.h|(cpython|internal)/.*"
)
SYSTEM_PLACES = (
    *("core/src/os/", "runtime/src/reactor/", "runtime/src/clock/", "runtime/src/interpose/"),
    "lab/",  # the probe's whole purpose is to ask this kernel what it does
)


def is_system_header(quote: str, name: str) -> bool:
    return quote == "<" and OTHER_HEADER.fullmatch(name) is None


def test_headers_of_the_operating_system_stay_in_their_places(product, exceptions):
    found = {
        f"{file.path}::{name}"
        for file in product
        if not file.path.startswith(SYSTEM_PLACES)
        for quote, name in includes(file)
        if is_system_header(quote, name)
    }
    allowed = exceptions["system_headers"].keys()
    problems = [f"{each}: a system header outside {', '.join(SYSTEM_PLACES)}" for each in sorted(found - allowed)]
    problems += [f"{each}: no longer included; remove the exception" for each in sorted(allowed - found)]
    assert not problems, "\n".join(problems)


def test_the_patterns_find_what_they_look_for():
    # A rule that can no longer match would pass for ever.
    assert re.search(CONDITIONAL + CPU, "#if defined(__x86_64__)")
    assert re.search(CONDITIONAL + CPU, "#  elif defined(_M_ARM64)")
    assert re.search(CONDITIONAL + SYSTEM, "#ifdef _WIN32")
    assert re.search(INTERPRETER, "#if PY_VERSION_HEX >= 0x030e0000")
    assert re.search(SANITIZER, "__sanitizer_start_switch_fiber(&saved, bottom, size);")
    assert not re.search(CONDITIONAL + CPU, "const int x86 = 1;")
    for name in ("sys/epoll.h", "sys/eventfd.h", "linux/futex.h", "sys/syscall.h", "sys/mman.h", "unistd.h"):
        assert is_system_header("<", name)
    for quote, name in (("<", "csignal"), ("<", "stdint.h"), ("<", "Python.h"), ('"', "os/os.hpp")):
        assert not is_system_header(quote, name)
