"""Which archive tools/debian-archive takes from apt's configuration."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "debian-archive"

VENDOR = """\
Types: deb
URIs: https://packages.example.com/node_20.x
Suites: nodistro
Components: main
"""


def ask(folder: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return subprocess.run([sys.executable, PROGRAM, folder], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"sources.list": "deb http://mirror.example/debian stable main\n"}, id="one line"),
        pytest.param(
            {
                "sources.list": """\
                    # deb http://commented.example/debian stable main
                    deb-src http://sources.example/debian stable main
                    deb http://security.example/debian-security stable-security main
                    deb [arch=amd64 signed-by=/usr/share/a.gpg] http://mirror.example/debian/ stable contrib main
                    """
            },
            id="one line with options, after others",
        ),
        pytest.param(
            {
                "sources.list.d/aaa.sources": VENDOR,
                "sources.list.d/debian.sources": """\
# the archive of the day
Types: deb deb-src
# a comment between
URIs: http://mirror.example/debian
Suites: stable stable-updates
Components:
 main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: stable-security
Components: main
""",
            },
            id="deb822",
        ),
        pytest.param(
            {
                "sources.list.d/a.sources": "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\n"
                "Suites: sid\nComponents: main\n",
                "sources.list.d/b.list": "deb cdrom:[Debian]/ stable main\ndeb http://mirror.example/debian sid main\n",
                "sources.list.d/c.list.disabled": "deb http://disabled.example/debian sid main\n",
            },
            id="disabled",
        ),
    ],
)
def test_the_archive_is_found(tmp_path, files):
    done = ask(tmp_path, files)
    assert (done.stdout, done.stderr, done.returncode) == ("http://mirror.example/debian\n", "", 0)


@pytest.mark.parametrize("files", [{}, {"sources.list": ""}, {"sources.list.d/vendor.sources": VENDOR}])
def test_without_an_archive_it_says_so(tmp_path, files):
    done = ask(tmp_path, files)
    assert done.returncode == 1
    assert "no source of Debian packages" in done.stderr
