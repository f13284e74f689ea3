"""What is made of a log and of an exception; tests/pipeline/test_failures.py has processes that really fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from sysml_run import document, failures, overrides
from sysml_run.resolve import resolve
from sysml_run.rundir import RunDir, write_json

RECIPE = """\
version: 1
name: one
model: {base_model: tiny:llama}
datasets: [{path: /data/rows.jsonl, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-5}
training: {max_steps: 1, micro_batch_size: 6, gradient_accumulation_steps: 2}
"""


def values(*changes: str) -> dict[str, Any]:
    return resolve(overrides.apply(document.parse(RECIPE, "r.yaml"), changes)).values


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
    assert words(MemoryError("no"), values())[1] == f"{failures.smaller(values())}\nits words: MemoryError: no"
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
    write_json(rundir.recipe, {"values": values(f"hardware={hardware}")})
    assert failures.several(stage, rundir) == several


GPU = "hardware={accelerator: gpu, devices: 2"


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        ((), ["micro_batch_size=3 --set training.gradient_accumulation_steps=4", "'lora={"], ["hardware", "nf4"]),
        (("training={max_steps: 1, micro_batch_size: 4, effective_batch_size: 8}",), ["batch_size=2  "], ["accumul"]),
        (("training.micro_batch_size=1", "lora={}"), ["quantization.load=nf4"], ["micro_batch", "'lora="]),
        (("lora={}", "quantization.load=nf4", "training.gradient_checkpointing=true"), [], ["load=", "checkpointing"]),
        (
            (f"{GPU}, zero_stage: null}}",),
            ["zero_stage=3  # it is null", "zero_stage=2 --set hardware.offload."],
            [],
        ),
        ((f"{GPU}, zero_stage: 3}}",), ["--set hardware.offload.parameters=cpu"], ["zero_stage=3"]),
        (
            (f"{GPU}, zero_stage: 3, offload: {{optimizer: cpu, parameters: cpu}}}}",),
            ["prompt.sequence_len=1024  # it is 2048"],
            ["offload"],
        ),
    ],
)
def test_what_takes_less(changes: tuple[str, ...], there: list[str], absent: list[str]) -> None:
    said = failures.smaller(values(*changes))
    assert said.startswith("what takes less memory, the cheapest first:\n  --set ")
    assert all(words in said for words in there), said
    assert not any(words in said for words in absent), said


def test_what_is_proposed_is_a_recipe() -> None:
    """Each line as a shell reads it, on the recipe that it is for."""
    import shlex

    from sysml_run import validate

    text = failures.smaller(values("hardware={accelerator: gpu, devices: 2}"))
    for line in text.splitlines()[1:]:
        typed = [word for word in shlex.split(line, comments=True) if "=" in word]
        changed = overrides.apply(document.parse(RECIPE, "r.yaml"), ["hardware={accelerator: gpu, devices: 2}", *typed])
        assert typed, line
        assert not [problem for problem in validate.check(changed) if problem.severity == "error"], line


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
    write_json(rundir.recipe, {"values": values()})
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
    assert failures.killed(1, reported(1, 1)) is None
    assert failures.killed(1, reported(-9, -6)) == ("process 0 of ", "SIGKILL")


def test_a_killed_training_says_what_takes_less(tmp_path: Path) -> None:
    rundir = run(tmp_path, "")
    write_json(rundir.recipe, {"values": json.loads(json.dumps(values()))})
    assert "what takes less memory" in str(failures.failure("train", 137, rundir).hint)
    assert failures.failure("train", -99, rundir).message == "train was ended by signal 99"
