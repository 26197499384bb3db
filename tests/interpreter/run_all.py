"""Runs the tests of this folder without pytest, for interpreters that have none.

python run_all.py <directory of _interpreter_probe> [test ...]
"""

import faulthandler
import importlib
import os
import sys
from pathlib import Path


def main(directory, only):
    os.environ["CULM_INTERPRETER_PROBE"] = directory
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    count = 0
    for file in sorted(here.glob("test_state_*.py")):
        module = importlib.import_module(file.stem)
        for name, test in list(vars(module).items()):
            if name.startswith("test_") and (not only or name in only):
                print(f"{file.stem}: {name}", flush=True)
                test()
                count += 1
    return count


def switch_state_ns():
    from probe_support import Fiber, park, probe

    parked = Fiber(park)
    parked.resume()
    best = min(probe.time_switch_state(parked, 20_000) for _ in range(20))
    parked.resume()
    return best


if __name__ == "__main__":
    faulthandler.enable()
    done = main(sys.argv[1], sys.argv[2:])
    print(f"ok: {done} tests on {sys.version.split()[0]}, {switch_state_ns():.2f} ns per switch_state")
