"""What `tools/test_tpu.sh` makes of pip's failures: only a missing torch_xla lets the tests be skipped."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="torch_xla is for Linux on x86_64"
)


def tried(folder: Path, pip: str) -> subprocess.CompletedProcess[str]:
    """The script beside an environment whose pip does this."""
    for name in ("tools/test_tpu.sh", "pyproject.toml", "constraints-tpu.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    bin = folder / ".venv-tpu/bin"
    bin.mkdir(parents=True)
    for name, text in {"pip": pip, "python": 'echo "$@"'}.items():
        (bin / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin / name).chmod(0o755)
    command, env = (
        ["bash", str(folder / "tools/test_tpu.sh"), "-x"],
        {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
    )
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_the_tests_run_where_pip_installs_all(tmp_path: Path) -> None:
    done = tried(tmp_path, "exit 0")
    assert (done.returncode, done.stdout) == (0, "-m pytest tests/tpu -x\n")


def test_without_torch_xla_they_are_skipped(tmp_path: Path) -> None:
    """The words are those of the real pip, which is asked where nothing is."""
    pip = f"{sys.executable} -m pip --isolated $1 $2 --no-index torch_xla"
    done = tried(tmp_path, pip)
    assert done.returncode == 0
    assert done.stderr.endswith("SKIPPED: tests/tpu were not run: pip finds no torch_xla\n")


@pytest.mark.parametrize("when", ["index", "install"])
def test_any_other_failure_is_one(when: str, tmp_path: Path) -> None:
    done = tried(tmp_path, f'[ "$1" != {when} ] || {{ echo "ERROR: the disk is full" >&2; exit 3; }}')
    assert done.returncode == 3
    assert "the disk is full" in done.stderr
    assert "SKIPPED" not in done.stderr
