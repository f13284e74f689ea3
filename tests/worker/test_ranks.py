"""Processes that train together: real ones, joined by gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sysml_run.worker import ranks

RUNNER = Path(ranks.__file__).parents[2]
JOIN = """
import json, os, sys, torch
from sysml_run.worker import ranks
here = os.environ["MEETING"]
torch.distributed.init_process_group("gloo", init_method=f"file://{here}", rank=ranks.rank(), world_size=ranks.world())
found = [ranks.total(ranks.rank() + 1, 0.5), ranks.any_of(ranks.rank() == 1), ranks.any_of(False), ranks.first()]
found.append(ranks.highest(ranks.rank() + 1, 0.5))
ranks.meet()
print(json.dumps(found))
ranks.leave(3)
"""


def start(code: str, env: dict[str, str], arguments: Sequence[str] = ()) -> subprocess.Popen[str]:
    path = {"PYTHONPATH": str(RUNNER), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, env={**os.environ, **path, **env}, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_three_processes_agree(tmp_path: Path) -> None:
    meeting = {"MEETING": str(tmp_path / "meeting"), "WORLD_SIZE": "3"}
    processes = [start(JOIN, {**meeting, "RANK": str(rank)}) for rank in range(3)]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert said == [[[6.0, 1.5], True, False, rank == 0, [3.0, 0.5]] for rank in range(3)]
    assert [process.returncode for process in processes] == [3, 3, 3]


def test_alone_nothing_is_asked_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.rank(), ranks.world(), ranks.first(), ranks.launched()) == (0, 1, True, False)
    assert ranks.total(2, 0.5) == ranks.highest(2, 0.5) == [2, 0.5]
    assert ranks.any_of(True)
    assert not ranks.any_of(False)
    ranks.meet()
    ranks.agree({})
    ranks.tied()
    ranks.untied()


def test_what_the_first_process_does_is_waited_for() -> None:
    answers = iter([False, True])
    ranks.waited_for(lambda: next(answers))
    assert next(answers, None) is None


CHILD = "from sysml_run.worker import ranks; import time; {}; print('ready', flush=True); time.sleep(60)"
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], start_new_session=True)"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize(
    ("env", "code", "ends"),
    [
        ({"TORCHELASTIC_RUN_ID": "none"}, "ranks.tied()", True),
        ({"TORCHELASTIC_RUN_ID": "none"}, "ranks.tied(); ranks.untied()", False),
        ({}, "ranks.tied()", False),
    ],
)
def test_a_launched_process_ends_with_its_launcher(env: dict[str, str], code: str, ends: bool) -> None:
    parent = start(PARENT, env, [CHILD.format(code)])
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    (child,) = [int(one) for one in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    parent.stdout.close()
    parent.kill()
    parent.wait()
    time.sleep(0.5)
    try:
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        state = "X"
    if not ends:
        os.kill(child, signal.SIGKILL)
    assert (state in "XZ") == ends
