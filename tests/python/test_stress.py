"""A few rounds of the stress program, in a process of its own. `make stress` runs it for longer."""

import pathlib
import subprocess
import sys

PROGRAM = pathlib.Path(__file__).parents[1] / "stress" / "stress.py"


def test_stress_for_a_moment(rng):
    seed = str(rng.randrange(2**32))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--seed", seed, "--rounds", "100", "--minutes", "0.05"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"--seed {seed}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.splitlines()[-1].startswith("ok: ")
