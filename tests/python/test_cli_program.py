"""`culm run` leaves a program what `python` gives it: both run the same programs and must agree.

Output, error output and exit status are compared, so nothing here says what Python's behaviour is.
"""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("click", reason="the command line needs culm[cli]")

SCRIPT = """
import sys

print(__name__, __file__, sys.argv, sys.path[0], __package__, __spec__ and __spec__.name, len(sys.modules) > 0)
print(sys.modules["__main__"].__dict__ is globals(), [name for name in globals() if "culm" in name])

def fail():
    raise ValueError("wrong")

match sys.argv[1:]:
    case ["raise"]:
        fail()
    case ["chained"]:
        try:
            fail()
        except ValueError as error:
            raise KeyError("worse") from error
    case ["exit", status]:
        sys.exit(int(status))
    case ["exit-text"]:
        sys.exit("a reason")
    case ["interrupt"]:
        raise KeyboardInterrupt
    case ["hook"]:
        sys.excepthook = lambda kind, error, trace: print("hook", kind.__name__, trace.tb_frame.f_code.co_name)
        fail()
    case ["thread"]:
        import threading

        threading.Thread(target=print, args=("from a thread",)).start()
    case ["atexit"]:
        import atexit

        atexit.register(print, "at exit")
        fail()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "broken.py").write_text("x = = 3\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "module.py").write_text(SCRIPT)
    (tmp_path / "package" / "__main__.py").write_text(SCRIPT)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(tmp_path / "script.py")
    return tmp_path


def run(folder: Path, *command: str) -> tuple[int, str, str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["script.py"],
        ["./script.py", "a", "--help", "-m", "-x", "--", "b"],
        ["elsewhere/link.py"],
        ["script.py", "raise"],
        ["script.py", "chained"],
        ["script.py", "exit", "7"],
        ["script.py", "exit-text"],
        ["script.py", "interrupt"],
        ["script.py", "hook"],
        ["script.py", "thread"],
        ["script.py", "atexit"],
        ["broken.py"],
        ["package"],
        ["package", "raise"],
        ["-m", "package.module", "a", "--help"],
        ["-m", "package.module", "raise"],
        ["-m", "package", "exit", "3"],
        ["-m", "script", "interrupt"],
        ["-m", "broken"],
        ["-m", "no_such_module"],
    ],
    ids=" ".join,
)
def test_program_behaves_as_under_python(folder, arguments):
    assert run(folder, "-m", "culm", "run", *arguments) == run(folder, *arguments)


def test_compiled_script_runs(folder):
    import py_compile

    py_compile.compile(str(folder / "script.py"), cfile=str(folder / "compiled.pyc"), doraise=True)
    assert run(folder, "-m", "culm", "run", "compiled.pyc", "a") == run(folder, "compiled.pyc", "a")


def test_missing_script_is_named_and_exits_with_2(folder):
    status, output, errors = run(folder, "-m", "culm", "run", "absent.py")
    assert (status, output) == (2, "")
    assert "can't open file" in errors
    assert "absent.py" in errors


def test_threads_of_the_program_are_fibers(folder):
    (folder / "threads.py").write_text(
        textwrap.dedent("""
        import os, threading, time
        everyone = threading.Barrier(50, timeout=30)
        threads = [threading.Thread(target=everyone.wait) for _ in range(49)]
        for thread in threads:
            thread.start()
        print(len(os.listdir("/proc/self/task")))
        everyone.wait()
        for thread in threads:
            thread.join()
        """)
    )
    assert run(folder, "-m", "culm", "run", "threads.py") == (0, "1\n", "")


def test_interrupt_from_outside_ends_a_sleeping_program_by_sigint(folder):
    (folder / "sleep.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(3600)\n")
    command = [sys.executable, "-m", "culm", "run", "sleep.py"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert "culm" not in errors


def test_without_the_extra_the_command_says_how_to_get_it(folder):
    program = "import sys; sys.modules['click'] = None; from culm.cli import main; sys.exit(main())"
    status, output, errors = run(folder, "-c", program)
    assert (status, output) == (2, "")
    assert "click" in errors
    assert "pip install 'culm[cli]'" in errors
