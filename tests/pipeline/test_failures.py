"""Real processes that fail for the usual reasons, and the one plain message that each of them leaves."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from sysml_run import execute, runs
from sysml_run.backends.base import Launch
from sysml_run.errors import StageError
from sysml_run.rundir import RunDir, read_json

from .test_resume import lines, only, start, wait_for
from .test_zero import LONG, SMOKE, alive, ranks, several

pytestmark = pytest.mark.slow
BROAD = ("training.micro_batch_size=2", "prompt.sequence_len=32768", "prompt.padding=max_length")
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
from sysml_run.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def changed(*assignments: str) -> list[str]:
    return [word for one in assignments for word in ("--set", one)]


def test_out_of_memory_in_a_step(project: Path, env: Mapping[str, str]) -> None:
    """The address space of every process is limited, so that torch's allocation fails as on a card that is full."""
    options = ["tiny.yaml", "--runs", "full", *changed(*BROAD, "model.attn_implementation=eager", *UNEVALUATED)]
    command = [sys.executable, "-c", LIMITED, str(ROOM), *options]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "train failed: out of memory in step 1 of 8, with a batch of 2 x 32,768 tokens" in done.stderr
    for helps in ("model.attn_implementation  eager  sdpa", "type --set model.attn_implementation=sdpa"):
        assert helps in done.stderr, helps
    assert "Traceback" not in done.stderr
    run = only(project / "full/tiny")
    assert run
    assert f"log: {run}/logs/train.log" in done.stderr
    assert "can't allocate memory" in (run / "logs/train.log").read_text()
    events = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    (event,) = [line for line in events if line["event"] == "out_of_memory"]
    assert (event["step"], event["rows"], event["tokens"]) == (1, 2, 32768)


UNEVALUATED = ("evaluation.every_steps=null", "evaluation.generate=null", "evaluation.metrics=[]")
ROOM = 6 * 2**30


def test_a_recipe_for_cards_started_by_hand_where_there_is_none(project: Path, sysml_run: Any, env: Any) -> None:
    written = project / "for cards"
    sysml_run("plan", "tiny.yaml", "--hardware", "gpu:2xl4-24gb", "--write", str(written))
    done = subprocess.run(["sh", written / "launch/train.sh"], env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    left = read_json(written / "error.json")
    assert left["message"] == "the recipe trains on a card, and torch sees none here"
    assert "--hardware cpu --smoke" in left["hint"]
    assert "ValueError: Your setup doesn't support" in done.stderr


HANGS = """
import sys
from sysml_run.worker import __main__ as worker, ranks
from datetime import timedelta
from torch.distributed import distributed_c10d
ranks.PATIENCE = 40
distributed_c10d.default_pg_timeout = timedelta(seconds=40)  # of the groups that DeepSpeed makes
worker.quiet()
ranks.tied()
ranks.leave(worker.main(sys.argv[1:]))
"""


def test_a_process_that_hangs(project: Path, sysml_run: Any, env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two is stopped in the middle of training; the other waits 40 seconds, in earnest half an hour."""
    run = RunDir(project / "hangs")
    more = changed("training.max_steps=4000", *UNEVALUATED)
    sysml_run("plan", "tiny.yaml", *several(2), *more, "--write", str(run.path))
    (script := run / "hangs.py").write_text(HANGS)
    launch = next(each for each in read_json(run / "plan.json")["launch"] if each["stage"] == "train")
    argv = (*launch["argv"][: launch["argv"].index("-m")], str(script), "train", str(run.path))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    freezer = threading.Thread(target=freeze_one, args=(run, over := threading.Event()))
    freezer.start()
    with pytest.raises(StageError) as error, runs.owned(run) as lock:
        execute.run([Launch("train", argv, launch["env"])], run, lock)
    over.set()
    freezer.join()
    assert error.value.message == "train failed: a process of the run hung: the others waited for it in vain"
    assert f"log: {run.log('train')}" in str(error.value.hint)
    assert "Timed out waiting 40000ms" in run.log("train").read_text()


def freeze_one(run: RunDir, over: threading.Event) -> None:
    """Stop the second process after three steps, and kill it when the first has said what is wrong."""
    this = psutil.Process()
    while len(lines(run.path)) < 3:
        if over.wait(0.05):
            return
    mine = [each for each in this.children(recursive=True) if str(run / "hangs.py") in each.cmdline()]
    (frozen,) = [each for each in mine if each.environ().get("RANK") == "1"]
    frozen.send_signal(signal.SIGSTOP)
    while not (run.error.exists() or over.wait(0.05)):
        continue
    over.wait(6)  # the launcher looks every few seconds, and is to find the one that said it first
    frozen.kill()


def test_a_process_that_was_killed_is_named(project: Path, env: Mapping[str, str]) -> None:
    runs_folder = project / "killed-one"
    process = start(project, env, *SMOKE, *LONG, *several(2), "--runs", str(runs_folder))
    wait_for(lambda: (run := only(runs_folder / "tiny-smoke")) and lines(run), process)
    started = ranks(process)
    (victim,) = [each for each in started if each.environ()["RANK"] == "1"]
    victim.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "process 1 of train was killed, most likely for lack of memory" in errors
    assert "what takes less memory, the cheapest first:" in errors
    assert f"{only(runs_folder / 'tiny-smoke')}/logs/train.log" in errors
    psutil.wait_procs(started, timeout=30)
    assert not any(map(alive, started))


# Processes that are joined as those of a run are, and then fail

JOINED = """
import datetime, json, os, sys, torch
from sysml_run import failures, manifest
from sysml_run.errors import StageError
from sysml_run.worker import ranks
def join(backend="gloo", address=f"file://{os.environ['MEETING']}", patience=60):
    wait = datetime.timedelta(seconds=patience)
    torch.distributed.init_process_group(backend, address, wait, rank=ranks.rank(), world_size=ranks.world())
try:
    exec(sys.argv[1])
except StageError as error:
    print(json.dumps([error.message, error.hint]))
except Exception as error:
    print(json.dumps([*failures.words(error, None, several=ranks.world() > 1), f"{type(error).__name__}: {error}"]))
ranks.leave(0)
"""


def said(tmp_path: Path, code: str, env: Mapping[str, str], world: int = 2, **own: str) -> list[list[str]]:
    """What each of so many processes says of its failure; `own` is added to the search path of the last one."""
    shared = {**env, "MEETING": str(tmp_path / "meeting"), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    each = [{**shared, "RANK": str(rank)} for rank in range(world)]
    each[-1]["PYTHONPATH"] += "".join(f":{folder}" for folder in own.values())
    command = [sys.executable, "-c", JOINED, code]
    started = [subprocess.Popen(command, env=one, stdout=subprocess.PIPE, text=True) for one in each]
    texts = [process.communicate(timeout=120)[0] for process in started]
    return [json.loads(text) if text else [] for text in texts]


def test_torch_without_nccl(tmp_path: Path, env: Mapping[str, str]) -> None:
    (found,) = said(tmp_path, "join('nccl')", env, world=1)
    assert found[0] == "this torch has no NCCL, through which cards talk to each other"


def test_a_process_that_ends(tmp_path: Path, env: Mapping[str, str]) -> None:
    first, second = said(tmp_path, "join(); ranks.meet(); ranks.rank() and os._exit(0); ranks.meet()", env)
    assert first[0] == "another process of the run ended, and this one cannot go on without it", first
    assert second == []


def test_machines_that_do_not_find_each_other(tmp_path: Path, env: Mapping[str, str]) -> None:
    nobody = "os.environ['RANK'] = '1'; join('gloo', 'tcp://127.0.0.1:9', 2)"
    _, found = said(tmp_path, f"ranks.rank() and exec({nobody!r})", env)
    assert found[0] == "the processes of the run did not find each other", found
    assert "MASTER_ADDR" in found[1]


def test_processes_with_other_versions(tmp_path: Path, env: Mapping[str, str]) -> None:
    other = tmp_path / "site/peft-0.1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1.0\n")
    first, second = said(tmp_path, "join(); ranks.agree(manifest.versions())", env, site=str(other.parent))
    assert first == second
    assert first[0].startswith("process 0 on ")
    assert first[0].endswith(" has peft 0.1.0")
    assert first[1] == "install the same versions on every machine: pip install peft==0.21.2"
