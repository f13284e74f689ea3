"""The quantize stage: GGUF and GPTQ copies of the finished model, each proven before it takes its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysml_run import exports
from sysml_run.errors import StageError
from sysml_run.recipe import Gguf, Gptq, Recipe
from sysml_run.rundir import RunDir, read_json, whole_folder, write_json

from . import evaluate, gptq, package, proof, readers
from .data import store
from .data.chat import Chat
from .gguf import convert, importance, words
from .gguf.importance import Importance
from .proof import Case, Reading
from .readers import Reader
from .train import rows

CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # all that numpy says of a full disk


@dataclass(frozen=True)
class Job:
    """What all copies are made from: the folder with the finished weights, and its tokenizer."""

    recipe: Recipe
    rundir: RunDir
    source: Path
    tokenizer: Any
    ends: list[int]
    case: Case


def run(recipe: Recipe, rundir: RunDir) -> dict[str, Any]:
    """Leave `quantized/NAME/` of every export, and the figures in evaluation.json. Raises StageError."""
    source = package.model_folder(recipe, rundir)
    tokenizer = package.loaded(recipe, source)
    split = rows(recipe, store.load(rundir))
    ends = store.end_ids(rundir, tokenizer)
    job = Job(recipe, rundir, source, tokenizer, ends, proof.case(recipe, split, evaluate.sample(recipe, len(split))))
    whole = unquantized(job)
    parameters = proof.parameters(source)
    whole.figures.update(proof.size(source, parameters))
    made, figures = {}, {}
    # GGUF first: GPTQModel changes transformers' Mixtral for the rest of the process.
    for export in sorted(recipe.quantization.export, key=lambda each: each.method):
        name = exports.name(export)
        made[name], figures[name] = one(job, export, whole, parameters)
        keep(rundir, figures)
    return {"source": source.name, "copies": made}


def unquantized(job: Job) -> Reading:
    """What copies are compared with; its weights are gone when this is left, for the next model is as large."""
    with readers.plain(job.source, job.recipe, job.tokenizer, job.ends) as reader:
        return proof.read(reader, job.case, job.recipe)


def one(job: Job, export: Gguf | Gptq, whole: Reading, parameters: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make one copy and prove it; gives facts for the record, and figures. Raises StageError and leaves nothing."""
    name = exports.name(export)
    place = job.rundir.quantized / name
    print(f"quantize: {name} from {job.source.name}/", flush=True)
    with writable(place), whole_folder(place) as folder:
        facts, path, opened = MAKERS[export.method](job, export, folder)
        with opened as reader:
            reading = proof.read(reader, job.case, job.recipe)
        limit = job.recipe.quantization.max_perplexity_increase
        figures = {**reading.figures, **proof.size(path, parameters), **proof.compared(reading, whole)}
        figures |= {"max_perplexity_increase": limit, "unquantized": whole.figures}
        proof.refuse(name, figures, limit)
    say(name, figures, facts.get("notes", []))
    return {**facts, **reading.smoke}, figures


Made = tuple[dict[str, Any], Path, AbstractContextManager[Reader]]


def make_gguf(job: Job, export: Any, folder: Path) -> Made:
    """One file, with the chat template that the run trained with."""
    recipe, config = job.recipe, read_json(job.source / "config.json")
    path = folder / f"{recipe.name}-{export.type}.gguf"
    told = words.read(job.tokenizer, config["vocab_size"], job.ends, template(recipe, job.tokenizer))
    found, ids = weighed(job, export)
    facts = convert.convert(job.source, path, export.type, told, about(job), found.means)
    facts["notes"] += found.notes
    reader = readers.gguf(path, job.source, recipe, job.tokenizer, job.ends, job.case.context)
    return {"file": path.name, "tokenizer": told.pre, **facts, **ids}, path, reader


def weighed(job: Job, export: Gguf) -> tuple[Importance, dict[str, Any]]:
    """How much inputs count, and for the record the ids of the rows; nothing of both without calibration."""
    if export.calibration is None:
        return Importance({}, []), {}
    picked = gptq.calibration(store.load(job.rundir).split("train"), export.calibration.samples, job.recipe.seed)
    print(f"quantize: calibrating on {len(picked)} training rows", flush=True)
    found = importance.collect(job.source, [row["input_ids"] for row in picked])
    return found, {"calibration": [row["id"] for row in picked]}


def make_gptq(job: Job, export: Any, folder: Path) -> Made:
    """A folder like the one it is made from."""
    train = store.load(job.rundir).split("train")
    facts = gptq.make(job.source, folder, export, train, job.recipe)
    job.tokenizer.save_pretrained(folder)
    package.make_ready(job.recipe, job.rundir, folder)
    return facts, folder, readers.gptq(folder, job.recipe, job.tokenizer, job.ends)


MAKERS: dict[str, Callable[[Job, Any, Path], Made]] = {"gguf": make_gguf, "gptq": make_gptq}


def template(recipe: Recipe, tokenizer: Any) -> str | None:
    """The chat template that is published with the model; None where it has none."""
    if recipe.prompt.template != "tokenizer":
        return Chat(tokenizer, recipe.prompt.template).published()
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


def about(job: Job) -> dict[str, str]:
    """Texts for the header of a GGUF file."""
    record = job.rundir.record("train")
    licence = (read_json(record).get("base") or {}).get("license") if record.is_file() else None
    return {"name": job.recipe.name} | ({"license": licence} if licence else {})


def keep(rundir: RunDir, figures: dict[str, Any]) -> None:
    """Beside the other figures of the run; those of copies that are made no longer go."""
    known = read_json(rundir.evaluation) if rundir.evaluation.is_file() else {}
    write_json(rundir.evaluation, known | {"quantized": figures})


def say(name: str, figures: dict[str, Any], notes: list[str]) -> None:
    size = f"{figures['bytes'] / 1e6:.1f} MB, {figures['bits_per_weight']:.2f} bits a weight"
    risen = f"perplexity {figures['unquantized']['perplexity']:.4g} -> {figures['perplexity']:.4g}"
    same = f"{100 * figures['top_token_agreement']:.1f} % of {figures['tokens']} tokens the same"
    print(f"quantize: {name}: {size}; {risen}, {same} ({figures['reader']})", flush=True)
    if figures.get("same_token_ids", 1.0) < 1:
        notes = [*notes, f"llama.cpp splits {100 * (1 - figures['same_token_ids']):.1f} % of the prompts differently"]
    for note in notes:
        print(f"quantize: {name}: {note}", flush=True)


@contextmanager
def writable(place: Path) -> Iterator[None]:
    """A full or closed disk as a StageError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        full = CUT_SHORT.fullmatch(str(error)) is not None
        reason = "no room is left" if full else getattr(error, "strerror", None) or error
        hint = "make room, and go on with --resume; or remove the export from quantization.export"
        raise StageError(f"{place} cannot be written: {reason}", hint) from error
