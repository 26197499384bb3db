"""patch(threads=True) and `culm run`: programs that have never heard of culm, their threads turned into fibers."""

import subprocess
import sys
from pathlib import Path

PATCHED = "import culm\nculm.patch(threads=True)\nimport os, threading, time\n"
OS_THREADS = "len(os.listdir('/proc/self/task'))"


def lines(done):
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_threads_are_fibers_and_join_works(run_script):
    done = run_script(
        PATCHED
        + f"""
log, go = [], threading.Event()
def work(i):
    go.wait()
    log.append((i, threading.current_thread().name, threading.get_ident()))
threads = [threading.Thread(target=work, args=(i,), name=f"t{{i}}") for i in range(100)]
for t in threads: t.start()
print({OS_THREADS}, threading.active_count(), len(threading.enumerate()))
go.set()
for t in threads: t.join()
print(sorted(log)[0][:2], len({{ident for *_, ident in log}}), threads[0].is_alive(), threading.active_count())
"""
    )
    assert lines(done) == ["1 101 101", "(0, 't0') 100 False 1"]


def test_exit_waits_for_non_daemon_threads_and_not_for_daemons(run_script):
    done = run_script(
        PATCHED
        + """
main_finished = threading.Event()
def waits():
    main_finished.wait()
    time.sleep(0.001)
    print("non-daemon finished")
def never():
    time.sleep(3600)
threading.Thread(target=waits).start()
threading.Thread(target=never, daemon=True).start()
print("main finished")
main_finished.set()
"""
    )
    assert lines(done) == ["main finished", "non-daemon finished"]


def test_exception_in_a_thread_goes_through_excepthook(run_script):
    done = run_script(
        PATCHED
        + """
threading.excepthook = lambda args: print(args.thread.name, args.exc_type.__name__)
t = threading.Thread(target=lambda: 1 / 0, name="bad")
t.start(); t.join()
"""
    )
    assert lines(done) == ["bad ZeroDivisionError"]


def test_thread_pool_executor_timer_and_local(run_script):
    done = run_script(
        PATCHED
        + f"""
from concurrent.futures import ThreadPoolExecutor
local, everybody = threading.local(), threading.Barrier(50, timeout=60)
def work(i):
    local.i = i
    everybody.wait()
    return local.i
with ThreadPoolExecutor(50) as pool:
    print(list(pool.map(work, range(200))) == list(range(200)), {OS_THREADS})
fired = threading.Event()
threading.Timer(0.01, fired.set).start()
print(fired.wait(10))
import _thread
done = _thread.allocate_lock(); done.acquire()
ident = _thread.start_new_thread(lambda: done.release(), ())
print(done.acquire(timeout=10), isinstance(ident, int))
try: _thread.start_new_thread(1, ())
except TypeError as error: print(error)
"""
    )
    assert lines(done) == ["True 1", "True", "True True", "first arg must be callable"]


def test_thread_misuse_is_refused_as_usual(run_script):
    done = run_script(
        PATCHED
        + """
t = threading.Thread(target=lambda: None)
try: t.join()
except RuntimeError as error: print(error)
t.start()
try: t.start()
except RuntimeError as error: print(error)
t.join()
def joins_itself():
    try: threading.current_thread().join()
    except RuntimeError as error: print(error)
u = threading.Thread(target=joins_itself); u.start(); u.join()
"""
    )
    assert lines(done) == [
        "cannot join thread before it is started",
        "threads can only be started once",
        "cannot join current thread",
    ]


def test_socketserver_threading_mixin(run_script):
    done = run_script(
        PATCHED
        + f"""
import socket, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128
    daemon_threads = True
server = Server(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever).start()
def client(i):
    with socket.create_connection(server.server_address) as s:
        f = s.makefile("rwb")
        for n in range(3):
            f.write(b"%d %d\\n" % (i, n)); f.flush()
            assert f.readline() == b"%d %d\\n" % (i, n)
threads = [threading.Thread(target=client, args=(i,)) for i in range(50)]
for t in threads: t.start()
for t in threads: t.join()
server.shutdown()
print("ok", {OS_THREADS})
"""
    )
    assert lines(done) == ["ok 1"]


def test_culm_run_turns_a_thousand_threads_of_requests_into_fibers():
    script = Path(__file__).parents[2] / "examples" / "slow_requests.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::ResourceWarning", "-m", "culm", "run", str(script), "1000"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1000 requests of 1 s in ")
    assert done.stdout.endswith(" with 1 OS thread(s)\n"), done.stdout


def test_a_thread_outlives_the_os_thread_that_started_it(run_script):
    done = run_script(
        """
import os, threading, time
import culm
go, log = threading.Event(), []
def old():
    go.wait()
    def later():
        may_end.wait()
        log.append("later ended")
    thread = threading.Thread(target=later, name="later")
    thread.start()
    started.append(thread)
    log.append("old returns")
old_thread = threading.Thread(target=old)
old_thread.start()  # an OS thread
native = old_thread.native_id
culm.patch(threads=True)
may_end, started = threading.Event(), []
go.set()
old_thread.join()
while os.path.exists(f"/proc/self/task/{native}"):
    culm.sleep(0.001)
print(log, started[0].is_alive(), threading.active_count())
may_end.set()
started[0].join()
print(log[1:], started[0].is_alive(), threading.active_count())
"""
    )
    assert lines(done) == ["['old returns'] True 2", "['later ended'] False 1"]


def test_exit_waits_for_a_thread_that_an_os_thread_started(run_script):
    done = run_script(
        """
import threading, time
import culm
go = threading.Event()
def old():
    go.wait()
    threading.Thread(target=later).start()
def later():
    time.sleep(0.01)
    print("later ended")
thread = threading.Thread(target=old)
thread.start()
culm.patch(threads=True)
go.set()
thread.join()
"""
    )
    assert lines(done) == ["later ended"]


def test_no_stack_for_a_thread_that_an_os_thread_starts_is_said_there(run_script):
    done = run_script(
        """
import resource, threading
import culm
go = threading.Event()
def old():
    go.wait()
    threading.stack_size(1 << 30)
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), resource.RLIM_INFINITY))
    try:
        threading.Thread(target=print).start()
    except RuntimeError as error:
        print(str(error)[:22])
thread = threading.Thread(target=old)
thread.start()
culm.patch(threads=True)
go.set()
thread.join()
"""
    )
    assert lines(done) == ["can't start new thread"]
