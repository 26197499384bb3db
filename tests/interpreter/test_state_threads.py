"""Fibers in several threads, after fork, at exit, in a sub-interpreter."""

import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

from probe_support import VERSION, Fiber, park, probe


def test_fibers_in_several_threads():
    errors = []

    def body(n):
        local = threading.local()
        local.n = n
        for _i in range(50):
            park()
            assert local.n == n

    def thread():
        try:
            fibers = [Fiber(functools.partial(body, n)) for n in range(5)]
            for _ in range(51):
                for fiber in fibers:
                    fiber.resume()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []


def test_fork_inside_a_fiber():
    def body():
        park()
        pid = os.fork()
        park(pid)
        return pid

    fiber, other = Fiber(body), Fiber(lambda: park() or "other")
    fiber.resume()
    other.resume()
    pid = fiber.resume()
    if pid == 0:
        status = 1
        try:
            if (
                fiber.resume() == 0
                and other.resume() == "other"
                and probe.main_thread_identity() == threading.get_ident()
            ):
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert fiber.resume() == pid
    assert other.resume() == "other"


def run_child(code):
    prelude = "import sys, os\nimport _interpreter_probe as probe\nfrom _interpreter_probe import Fiber, park\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(probe.__file__).parent)}
    return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, env=environment)


def test_exit_with_suspended_fibers_is_clean():
    done = run_child(
        "def body():\n    try:\n        park()\n    finally:\n        print('unwound')\n"
        "f = Fiber(body)\nf.resume()\nprint('end')"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split()[0] == "end"


def test_exit_inside_a_fiber():
    done = run_child("Fiber(lambda: sys.exit(3)).resume()")
    assert done.returncode == 3, done.stderr


def test_sub_interpreter_is_refused():
    if VERSION < (3, 12):
        return
    inner = (
        "import sys\\nsys.path.insert(0, %r)\\ntry:\\n import _interpreter_probe as p\\n p.Fiber(print)"
        "\\nexcept ImportError as e: print(e)\\n"
    )
    code = (
        "try:\n    import _interpreters as i\nexcept ImportError:\n    import _xxsubinterpreters as i\n"
        "import os\n"
        f"i.run_string(i.create(), '{inner}' % os.path.dirname(probe.__file__))\n"
    )
    done = run_child(code)
    assert "interpreter" in done.stdout, (done.stdout, done.stderr)


def test_many_fibers():
    def body(n):
        x = park(n)
        return x + n

    fibers = [Fiber(functools.partial(body, n)) for n in range(2000)]
    assert [f.resume() for f in fibers] == list(range(2000))
    assert [f.resume(1) for f in fibers] == [n + 1 for n in range(2000)]
