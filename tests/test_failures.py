"""What is made of a log and of an exception; tests/pipeline/test_failures.py has processes that really fail."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from sysml_run import document, failures, overrides, plan, validate
from sysml_run.estimate.verdict import verdict
from sysml_run.machine import Machine
from sysml_run.resolve import Resolved, build, resolve
from sysml_run.rundir import RunDir, write_json

HERE = Machine(8, 64 * 10**9, "CPU", True, "has bf16", "/venv/bin/python")
RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
training: {max_steps: 1, micro_batch_size: 6, gradient_accumulation_steps: 2}
"""


def written(*changes: str) -> dict[str, Any]:
    """What a run's recipe.json holds."""
    made = plan.settle(resolve(overrides.apply(document.parse(RECIPE, "r.yaml"), changes)), HERE)
    return json.loads(json.dumps({"values": made.values, "sources": made.sources}))


# Words of libraries that have no card to fail on here, as their sources have them (c10/cuda/CUDAFunctions.cpp,
# c10/cuda/CUDACachingAllocator.cpp, ProcessGroupNCCL.cpp), and of those that do fail in tests/pipeline.
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of", "memory"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes", "memory"),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 11040).", "driver"),
        ("RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU", "card"),
        ("RuntimeError: No CUDA GPUs are available", "card"),
        ("AssertionError: Torch not compiled with CUDA enabled", "card"),
        ("RuntimeError: Distributed package doesn't have NCCL built in", "nccl"),
        ("ImportError: libnccl.so.2: cannot open shared object file: No such file or directory", "nccl"),
        ("[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, Timeout(ms)=600000)", "hung"),
        ("RuntimeError: [unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to complete", "hung"),
        ("DistNetworkError: The client socket has timed out after 2000ms while trying to connect", "meeting"),
        ("DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:94, remote process exited", "network"),
        ("RuntimeError: [pair.cc:553] Connection closed by peer [127.0.0.1]:56713", "lost"),
        ("ValueError: this is not one of them", None),
    ],
)
def test_words_of_libraries(text: str, name: str | None) -> None:
    row = failures.known(text, several=True)
    assert (row and row.name) == name


def test_each_row_has_its_words_here() -> None:
    marks = next(mark for mark in test_words_of_libraries.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {name for _, name in marks.args[1]} == {row.name for row in failures.FAILURES} | {None}


def test_an_exception_that_nobody_knows_keeps_its_own_words() -> None:
    def words(error: Exception, known: dict[str, Any] | None = None) -> tuple[str, str | None]:
        return failures.words(error, known, several=True)

    assert words(ValueError("as it is")) == ("ValueError: as it is", None)
    assert words(MemoryError("no")) == ("out of memory", "its words: MemoryError: no")
    assert words(MemoryError("no"), written())[1] == f"{failures.smaller(written())}\nits words: MemoryError: no"
    said = str(words(AssertionError("Torch not compiled with CUDA\n" + 300 * "x"))[1])
    assert "--hardware cpu --smoke" in said
    assert said.splitlines()[1].startswith("its words: AssertionError: Torch not compiled with CUDA xxx")
    assert said.endswith("x…")


RESET = ConnectionResetError(104, "Connection reset by peer")


def test_a_process_alone_is_left_by_no_other() -> None:
    """A download that is cut off says the same as a process whose neighbour ended."""
    assert failures.words(RESET, None, several=True)[0].startswith("another process of the run ended")
    said = "ConnectionResetError: [Errno 104] Connection reset by peer"
    assert failures.words(RESET, None, several=False) == (said, None)


@pytest.mark.parametrize(
    ("stage", "hardware", "several"),
    [
        ("train", "{accelerator: cpu}", False),
        ("train", "{accelerator: cpu, devices: 2}", True),
        ("train", "{accelerator: gpu, devices: 1, nodes: 2}", True),
        ("merge", "{accelerator: gpu, devices: 8}", False),
    ],
)
def test_stages_of_several_processes(tmp_path: Path, stage: str, hardware: str, several: bool) -> None:
    rundir = RunDir(tmp_path)
    write_json(rundir.recipe, written(f"hardware={hardware}"))
    assert failures.several(stage, rundir) == several


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def test_what_takes_less_is_typed_on_one_line() -> None:
    """As a shell reads it, on the recipe that it is for: half the rows at a time, and as many in a step."""
    large = ("model.base_model=meta-llama/Meta-Llama-3-8B", "lora={}", "hardware={accelerator: gpu, type: h100-80gb}")
    said = failures.smaller(written(*large)).splitlines()
    assert said[0] == "what takes less memory, the cheapest first:"
    assert said[1].split() == ["changed", "A", "B"]
    (typed,) = [line.removeprefix("type ") for line in said if line.startswith("type ")]
    changes = [word for word in shlex.split(typed) if word != "--set"]
    changed = overrides.apply(document.parse(RECIPE, "r.yaml"), [*large, *changes])
    assert not [problem for problem in validate.check(changed) if problem.severity == "error"]
    before, after = verdicts(written(*large), {"values": resolve(changed).values})
    assert after < before
    assert said[-2].startswith("estimated on each device: ")


def verdicts(*recipes: dict[str, Any]) -> list[int]:
    found = [verdict(plan.settle(resolved(each), HERE).recipe, HERE) for each in recipes]
    return [each.estimate.total for each in found if each]


def resolved(recipe: dict[str, Any]) -> Resolved:
    return Resolved(build(recipe["values"]), recipe["values"], recipe.get("sources", {}))


def test_the_batch_at_which_it_failed_counts() -> None:
    """Shorter rows than the longest were too much already, so that more has to change."""
    large = ("model.base_model=meta-llama/Meta-Llama-3-8B", "lora={}", "training.gradient_checkpointing=true")
    large += ("hardware={accelerator: gpu, type: h100-80gb}",)
    whole, part = failures.smaller(written(*large)), failures.smaller(written(*large), (6, 512))
    assert "training.micro_batch_size" in whole
    assert whole.splitlines()[-1] != part.splitlines()[-1]
    sizes = [text.splitlines()[-2].removeprefix("estimated on each device: ").split(" -> ") for text in (whole, part)]
    assert sizes[0][0] == sizes[1][0]
    assert float(sizes[1][1].split()[0]) < float(sizes[0][1].split()[0])


def test_where_nothing_is_known_to_be_enough_everything_is_named() -> None:
    """A tiny model's process takes what it takes."""
    said = failures.smaller(written("training.micro_batch_size=1"))
    assert "training.gradient_checkpointing" in said
    assert said.endswith("\ntry one after the other: --set KEY=VALUE")
    assert "type " not in said


def test_of_a_model_that_is_not_known_everything_is_named() -> None:
    said = failures.smaller(written("model.base_model=nobody/knows", "hardware={accelerator: gpu, devices: 2}"))
    lines = [line.split()[0] for line in said.splitlines()[1:] if "  " in line.strip()]
    assert "training.micro_batch_size" in lines
    assert "hardware.zero_stage" in lines
    assert "type " not in said


def test_the_last_batch_is_among_the_events(tmp_path: Path) -> None:
    rundir = RunDir(tmp_path)
    assert failures._batch(rundir) is None
    rundir.event("out_of_memory", step=1, rows=None, tokens=None)
    assert failures._batch(rundir) is None
    rundir.event("out_of_memory", step=1, rows=4, tokens=77)
    rundir.event("stage_started", stage="train")
    assert failures._batch(rundir) == (4, 77)


def test_a_recipe_of_another_version_is_no_second_failure(tmp_path: Path) -> None:
    rundir = run(tmp_path, "CUDA out of memory\n")
    write_json(rundir.recipe, {"values": {"version": 1, "name": "one", "model": {}}})
    assert failures.failure("train", 1, rundir).message == "train failed: out of memory"


def run(folder: Path, log: str) -> RunDir:
    rundir = RunDir(folder)
    rundir.log("train").parent.mkdir(parents=True)
    rundir.log("train").write_text(log)
    return rundir


def reported(*exits: int) -> str:
    """What torch's launcher prints of processes that ended so, the first of them being the root cause."""
    ended = {rank: ProcessFailure(rank, 9560 + rank, exitcode, "") for rank, exitcode in enumerate(exits) if exitcode}
    for rank, each in ended.items():
        each.timestamp = rank  # its clock counts seconds: of what ends within one, the first rank is the cause
    return f"{ChildFailedError('sysml_run.worker', ended)}\n"


CAUSE = reported(0, 0, 0, -6)


def test_a_process_that_ended_itself(tmp_path: Path) -> None:
    found = failures.failure("train", 1, run(tmp_path, CAUSE))
    assert found.message == "process 3 of train was ended by SIGABRT"
    assert found.hint == f"log: {tmp_path}/logs/train.log"


def test_nccl_ends_a_process_that_waits_in_vain(tmp_path: Path) -> None:
    found = failures.failure("train", 1, run(tmp_path, f"Watchdog caught collective operation timeout: …\n{CAUSE}"))
    assert found.message == "train failed: a process of the run hung: the others waited for it in vain"


def test_a_process_that_left_no_word_but_its_log(tmp_path: Path) -> None:
    rundir = run(tmp_path, "CUDA out of memory. Tried to allocate 20.00 GiB\n")
    found = failures.failure("train", 1, rundir)
    assert found.message == "train failed: out of memory"
    words = "its words: CUDA out of memory. Tried to allocate 20.00 GiB"
    assert found.hint == f"{words}\nlog: {rundir.log('train')}"
    write_json(rundir.recipe, written())
    assert "what takes less memory" in str(failures.failure("train", 1, rundir).hint)


def test_an_earlier_attempt_is_not_blamed(tmp_path: Path) -> None:
    earlier = f"CUDA out of memory\n{CAUSE}"
    rundir = run(tmp_path, f"{earlier}just now\n")
    found = failures.failure("train", 1, rundir, len(earlier))
    assert (found.message, found.hint) == ("train failed with exit code 1", f"log: {rundir.log('train')}\njust now")


def test_what_a_worker_left_is_before_the_launchers_cause(tmp_path: Path) -> None:
    rundir = run(tmp_path, CAUSE)
    write_json(rundir.error, {"message": "no rows", "hint": "add some"})
    assert failures.failure("train", 1, rundir).message == "train failed: no rows"
    write_json(rundir.error, {"message": failures.FOLLOWING[-1], "hint": ""})
    assert failures.failure("train", 1, rundir).message == "process 3 of train was ended by SIGABRT"


def test_the_cause_is_who_was_killed_though_another_that_fell_over_it_is_named_first(tmp_path: Path) -> None:
    rundir = run(tmp_path, reported(1, 1, -9))
    write_json(rundir.error, {"message": failures.FOLLOWING[-1], "hint": ""})
    found = failures.failure("train", 1, rundir)
    assert found.message == "process 2 of train was killed, most likely for lack of memory"
    write_json(rundir.error, {"message": "a process of the run hung", "hint": ""})  # and the launcher killed it
    assert failures.failure("train", 1, rundir).message == "train failed: a process of the run hung"
    assert failures.killed(1, reported(1, 1)) is None
    assert failures.killed(1, reported(-9, -6)) == ("process 0 of ", "SIGKILL")


def test_a_process_alone_that_was_killed() -> None:
    """As accelerate says it of the one process that it started."""
    said = "subprocess.CalledProcessError: Command '['python']' died with <Signals.SIGKILL: 9>."
    assert failures.killed(1, f"first\n{said}") == ("", "SIGKILL")
    assert failures.killed(1, f"{said}\nlast") is None


def test_a_killed_training_says_what_takes_less(tmp_path: Path) -> None:
    rundir = run(tmp_path, "")
    write_json(rundir.recipe, written())
    assert "what takes less memory" in str(failures.failure("train", 137, rundir).hint)
    assert failures.failure("train", -99, rundir).message == "train was ended by signal 99"
