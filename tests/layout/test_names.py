"""Names, file openings, and what must not be in the project at all."""

import ast
import re

import pytest

VAGUE = r"Manager|Helper|Helpers|Util|Utils|Impl|Base|Data|Info"
TEXT_SUFFIXES = {".cpp", ".hpp", ".S", ".in", ".py", ".pyi", ".md", ".toml", ".txt", ".cmake", ".json", ".yml", ""}


def test_no_type_has_a_vague_name(files):
    # A name that begins with _Py is CPython's.
    declared = re.compile(
        rf"\b(?:class|struct|union|enum(?:\s+class)?)\s+(?:alignas\(\w+\)\s+)?((?!_Py)\w*?(?:{VAGUE}))\b(?!\s*::)"
    )
    problems = [
        f"{file.path}: {name}"
        for file in files
        if file.suffix in (".cpp", ".hpp", ".py", ".pyi")
        for name in declared.findall(file.code if file.is_cpp else file.text)
    ]
    assert not problems, "\n".join(problems)


def test_no_file_has_a_vague_name(files):
    # "data_stack" is CPython's own term; "data.cpp" says nothing.
    pattern = re.compile(r"(^|_)(manager|helper|util|impl|misc)s?(_|\.)|^(base|common|data|info)s?\.")
    problems = [file.path for file in files if pattern.search(file.path.rsplit("/", 1)[-1])]
    assert not problems, "\n".join(problems)


def test_every_source_file_opens_by_saying_what_it_is(files):
    problems = []
    for file in files:
        if file.suffix == ".py":
            tree = ast.parse(file.text)
            if ast.get_docstring(tree) is None:
                problems.append(file.path)
        elif file.suffix in (".cpp", ".hpp", ".S", ".pyi") and not re.match(
            r'\s*(//|/\*|#(?! *(if|include|pragma))|""")', file.text
        ):
            problems.append(file.path)
    assert not problems, "no opening comment or docstring:\n" + "\n".join(problems)


def test_no_path_of_one_machine(files):
    path = re.compile(r"(?<![\w.$}~-])/(?:root|home|work|Users|mnt)/\w[\w./-]*")
    problems = [
        f"{file.path}:{number}: {match[0]}"
        for file in files
        if file.suffix in TEXT_SUFFIXES
        for number, line in enumerate(file.text.splitlines(), 1)
        for match in path.finditer(line)
    ]
    assert not problems, "\n".join(problems)


# Assembled here, so that this file does not match. A user's machine says where its packages come from.
PACKAGE_HOSTS = re.compile(
    "|".join(
        re.escape(".".join(parts))
        for parts in [
            *(("deb", "debian", "org"), ("ftp", "debian", "org"), ("security", "debian", "org")),
            *(("snapshot", "debian", "org"), ("archive", "ubuntu", "com"), ("pypi", "org")),
            *(("pypi", "python", "org"), ("files", "pythonhosted", "org"), ("registry", "npmjs", "org")),
            *(("conda", "anaconda", "org"), ("proxy", "golang", "org"), ("static", "crates", "io")),
        ]
    )
)


def test_no_address_of_a_package_archive(files):
    problems = [
        f"{file.path}:{number}: {line.strip()}"
        for file in files
        if file.suffix in {*TEXT_SUFFIXES, ".yaml", ".cfg", ".sh"}
        for number, line in enumerate(file.text.splitlines(), 1)
        if PACKAGE_HOSTS.search(line)
    ]
    assert not problems, "\n".join(problems)


def test_the_pattern_of_package_archives_finds_them():
    assert PACKAGE_HOSTS.search("http://deb." + "debian.org/debian")
    assert PACKAGE_HOSTS.search("--index-url https://pypi" + ".org/simple")
    assert not PACKAGE_HOSTS.search("CMake and Ninja come from PyPI, doctest from Debian")


def test_nothing_is_left_to_do(files):
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    problems = [
        f"{file.path}:{number}: {line.strip()}"
        for file in files
        if file.suffix in (".cpp", ".hpp", ".S", ".py", ".pyi", ".cmake")
        for number, line in enumerate(file.text.splitlines(), 1)
        if marks.search(line)
    ]
    assert not problems, "\n".join(problems)


def exported_names(file) -> list[str]:
    """What the module lists in __all__."""
    for node in ast.parse(file.text).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


# Public modules that show a name of the package again, on purpose.
ALSO_IN = {("python/culm/lowlevel.py", "Fiber")}


def test_public_names_are_exported_once(package):
    homes: dict[str, str] = {}
    problems = []
    # The private command line is no part of the interface.
    for file in package:
        if file.suffix != ".py" or file.path.startswith("python/culm/cli/"):
            continue
        for name in exported_names(file):
            if name in homes and (file.path, name) not in ALSO_IN:
                problems.append(f"{name}: {homes[name]} and {file.path}")
            homes.setdefault(name, file.path)
    assert not problems, "exported more than once:\n" + "\n".join(problems)


def test_the_package_exports_exactly_what_it_imports(package):
    top = next((file for file in package if file.path == "python/culm/__init__.py"), None)
    if top is None:
        pytest.fail("python/culm/__init__.py is missing")
    bound: set[str] = set()
    for node in ast.parse(top.text).body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    public = {name for name in bound if not name.startswith("_")}
    exported = set(exported_names(top))
    assert exported - {"__version__"} <= bound, f"exported but not there: {sorted(exported - bound)}"
    assert public <= exported | {"annotations"}, f"there but not exported: {sorted(public - exported)}"
