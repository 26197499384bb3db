"""Limits on size: files 500 lines, public headers 200, functions 60.

What is larger today stands in exceptions.toml with its size; that list may only shrink.
"""

import ast
import re

FILE_LINES = 500
HEADER_LINES = 200
FUNCTION_LINES = 60

# What opens a scope that is no function body, judged by the text between the last ; { } and its brace.
_CONTAINER = re.compile(
    r"\b(namespace|class|struct|union|enum|concept)\b(?!.*\)\s*(const|noexcept|override|\s)*$)|extern\s*\"\"", re.DOTALL
)
_FUNCTION = re.compile(r"((?:[\w]+(?:<[^<>()]*>)?::)*(?:~?\w+|operator[^\w\s]+))\s*\(.*\)", re.DOTALL)


def test_files(files, exceptions, check_limit):
    sizes = {file.path: file.line_count for file in files if file.suffix in (".cpp", ".hpp", ".S", ".py", ".pyi")}
    assert not (problems := check_limit(sizes, FILE_LINES, exceptions["files"])), "\n".join(problems)


def test_public_headers(files, exceptions, check_limit):
    sizes = {file.path: file.line_count for file in files if file.is_public_header}
    assert not (problems := check_limit(sizes, HEADER_LINES, exceptions["public_headers"])), "\n".join(problems)


def test_functions(files, exceptions, check_limit):
    sizes: dict[str, int] = {}
    for file in files:
        if file.suffix in (".cpp", ".hpp"):
            found = cpp_functions(file.code)
        elif file.suffix == ".py":
            found = python_functions(file.text)
        else:
            continue
        for name, lines in found:
            key = f"{file.path}::{name}"
            sizes[key] = max(lines, sizes.get(key, 0))
    assert len(sizes) > 50, "hardly any function was found: the search is broken"
    assert not (problems := check_limit(sizes, FUNCTION_LINES, exceptions["functions"])), "\n".join(problems)


def python_functions(text: str) -> list[tuple[str, int]]:
    return [
        (node.name, (node.end_lineno or node.lineno) - node.lineno + 1)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def cpp_functions(code: str) -> list[tuple[str, int]]:
    """Name and length in lines of each function, from its first line to its closing brace.

    Follows braces: one opened at the level of a namespace or a class after something with parentheses is a function's.
    """
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", code, flags=re.MULTILINE)  # preprocessor lines
    found = []
    scopes: list[tuple[str, int] | None] = []  # None: a namespace or class; else a function or what lies inside one
    head_start = 0
    for match in re.finditer(r"[{};]", code):
        mark = match[0]
        inside_function = any(scope is not None for scope in scopes)
        if mark == "{":
            head = code[head_start : match.start()]
            name = None if inside_function else function_name(head)
            if name is not None:
                first = head_start + len(head) - len(head.lstrip())
                scopes.append((name, code.count("\n", 0, first)))
            else:
                scopes.append(("", 0) if inside_function else None)
        elif mark == "}" and scopes:
            scope = scopes.pop()
            if scope is not None and scope[0]:
                found.append((scope[0], code.count("\n", 0, match.start()) - scope[1] + 1))
        head_start = match.end()
    return found


def function_name(head: str) -> str | None:
    if _CONTAINER.search(head):
        return None
    match = _FUNCTION.search(head)
    return match[1] if match else None


def test_function_search_measures_what_it_should():
    code = """
namespace culm {
struct Point {
    int x = 0;
    int sum() const noexcept { return x; }
};

template <class T>
void Pool<T>::put(Stack stack,
                  int count) noexcept {
    if (count) {
        use([&] { return stack; });
    }
}

enum class Kind { kA, kB };
constexpr int kTable[] = {1, 2};
}  // namespace
"""
    assert cpp_functions(code) == [("sum", 1), ("Pool<T>::put", 7)]
