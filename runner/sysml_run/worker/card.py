"""The model card of a package: what it is, what it was made from, how well it does, and how to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sysml_run import manifest
from sysml_run.measures import duration, measures, percent, sample
from sysml_run.recipe import Recipe
from sysml_run.rundir import read_json

from . import copytable
from .copytable import Table
from .outcome import Outcome
from .taught import shown

TEMPLATES = Path(__file__).with_name("templates")
UNKNOWN = "unknown, see the base model"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
Pairs = Iterator[tuple[str, str]]


def make(recipe: Recipe, found: Outcome, folder: Path) -> str:
    """README.md with Hugging Face's front matter, for the package in `folder`."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(cell=cell, fenced=fenced, text=text, python=quoted)
    front = yaml.dump(front_matter(recipe, found, folder), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True)
    return environment.get_template("README.md.j2").render(
        front=front,
        found=found,
        license=found.base.get("license") or UNKNOWN,
        base=list(base(found)),
        measures=measures(found.evaluation),
        sample=sample(found.evaluation),
        tested=measures(found.evaluation, "test"),
        test_sample=sample(found.evaluation, "test"),
        merged=found.evaluation.get("merged"),
        quantized=copies(found, folder),
        load=loading(recipe, found, folder),
        prompts=prompts(recipe),
        files=manifest.data(found.records.get("prepare", {})),
        rows=list(rows(recipe, found)),
        training=list(training(recipe, found)),
        limits=list(limits(recipe, found)),
        versions=found.train.get("versions") or manifest.versions(),
    )


def front_matter(recipe: Recipe, found: Outcome, folder: Path) -> dict[str, Any]:
    """The keys the hub reads (https://huggingface.co/docs/hub/model-cards); none is guessed."""
    method = ["lora"] if recipe.lora else [] if found.elsewhere else ["full-fine-tune"]
    method += ["qlora"] if found.load else []
    chat = ["conversational"] if (folder / "chat_template.jinja").is_file() else []
    keys = {
        "base_model": found.base_name if HUB_NAME.fullmatch(found.base_name) else None,
        "license": found.base.get("license") or "unknown",
        "language": found.base.get("languages"),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sysml-run", *method, *chat],
    }
    return {key: value for key, value in keys.items() if value}


def base(found: Outcome) -> Pairs:
    """What is known of the base model."""
    named = {"name": "Name in its own file", "revision": "Revision", "sha256": "sha256 of its file"}
    yield "Base model", found.base_name
    yield "Licence", found.base.get("license") or UNKNOWN
    yield from ((label, str(found.base[key])) for key, label in named.items() if found.base.get(key))


def loading(recipe: Recipe, found: Outcome, folder: Path) -> dict[str, Any]:
    """What the loading snippet needs: whether there is a chat template, and the settings of evaluation."""
    generate = recipe.evaluation.generate
    inline = read_json(folder / "tokenizer_config.json").get("chat_template")
    return {
        "chat": bool(inline) or (folder / "chat_template.jinja").is_file(),
        "system": fixed_system(recipe),
        "tokens": generate.max_new_tokens if generate else 128,
        "remote": recipe.model.trust_remote_code,
        "adapter": (folder / "adapter").is_dir(),
        "gguf": [path.relative_to(folder).as_posix() for path in sorted(folder.glob("quantized/*/*.gguf"))],
        "gptq": [path.parent.relative_to(folder).as_posix() for path in sorted(folder.glob("quantized/*/config.json"))],
        "length": recipe.prompt.sequence_len,
        "name": re.sub(r"[^a-z0-9_-]+", "-", found.values["name"].lower()),
    }


def fixed_system(recipe: Recipe) -> str | None:
    """The words for the system that every row had; None where there are none or they differ from row to row."""
    turns = dict(prompts(recipe)[0][1]) if prompts(recipe) else {}
    system = turns.get("system")
    return system if system and "{" not in system else None


def copies(found: Outcome, folder: Path) -> Table | None:
    """What was measured of each packed quantized copy; None where there is none."""
    known = found.evaluation.get("quantized") or {}
    packed = {name: each for name, each in known.items() if (folder / "quantized" / name).is_dir()}
    return copytable.table({"quantized": packed})


def prompts(recipe: Recipe) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each dataset with templates: its name, and the role and template of each turn."""
    from .data.rowtypes import resolved_map

    found = []
    for dataset in recipe.datasets:
        used = resolved_map(dataset)
        turns = (("system", used.system), ("user", used.prompt), ("assistant", used.completion))
        found.append((Path(dataset.path).name, [(role, template) for role, template in turns if template is not None]))
    return [(name, turns) for name, turns in found if turns]


def rows(recipe: Recipe, found: Outcome) -> Pairs:
    """What became of the rows."""
    counts = found.data.get("rows", {})
    if counts:
        yield "Rows read", f"{counts['read']:,}"
        yield "Rows kept", f"{counts['kept']:,}"
    for name, split in found.data.get("splits", {}).items():
        if split["rows"]:
            tokens = split["tokens"]
            yield name.capitalize(), f"{split['rows']:,} rows; tokens: median {tokens['p50']}, longest {tokens['max']}"
    if recipe.split.group_by:
        yield "Kept on one side", f"rows with the same {recipe.split.group_by}"


def training(recipe: Recipe, found: Outcome) -> Pairs:
    """How it was trained, from the recipe and from what training recorded."""
    lora, optimizer, done = recipe.lora, recipe.optimizer, found.train
    if found.elsewhere:
        yield "Method", found.method
        yield "Trained model", found.elsewhere
        yield from (("sha256", digest) for digest in done["elsewhere"]["sha256"].values())
        return
    micro, accumulation = recipe.training.micro_batch_size, recipe.training.gradient_accumulation_steps or 1
    devices = getattr(recipe.hardware, "devices", 1) * getattr(recipe.hardware, "nodes", 1)
    yield "Method", found.method
    if lora:
        layers = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
        yield "Adapter", f"alpha {lora.alpha:g}, dropout {lora.dropout:g}, on {layers}"
    yield from teacher(recipe, found)
    step0 = done.get("step0", {})
    if "trainable_parameters" in step0:
        yield "Trained parameters", f"{step0['trainable_parameters']:,} of {step0['total_parameters']:,}"
    if "quantized_layers" in step0:
        held = f"{step0['quantized_parameters']:,} numbers of {step0['quantized_layers']} layers"
        yield "Base in training", f"{found.load} through bitsandbytes: {held}"
    yield "Optimizer", f"{optimizer.name}, learning rate {optimizer.learning_rate:g}, {optimizer.lr_scheduler}"
    yield "Weight decay", f"{optimizer.weight_decay:g}"
    yield (
        "Batch",
        f"{micro * accumulation * devices} rows: {micro} at a time x {accumulation} accumulated x {devices} processes",
    )
    yield "Longest row", f"{recipe.prompt.sequence_len} tokens; loss on: {recipe.prompt.train_on}"
    yield "Precision", f"{recipe.hardware.precision} on {recipe.hardware.accelerator}; kept in {recipe.model.dtype}"
    yield "Seed", str(recipe.seed)
    if "steps" in done:
        yield "Steps", f"{done['steps']:,}"
    if "training_seconds" in done:
        yield "Time", f"{duration(done['training_seconds'])}, {done['tokens_per_second']:,} tokens/s"


def teacher(recipe: Recipe, found: Outcome) -> Pairs:
    """Whose predictions were learned from, and how."""
    chosen = recipe.distillation
    if chosen is not None and "teacher" in found.records:
        mixed = f"weight {chosen.alpha:g} beside the labels, temperature {chosen.temperature:g}"
        yield "Teacher", f"{shown(chosen.teacher)}, {mixed}"
        yield "Licence of the teacher", found.records["teacher"].get("license") or UNKNOWN


def limits(recipe: Recipe, found: Outcome) -> Iterator[str]:
    """What a user must not expect; each sentence follows from the run."""
    if found.elsewhere:
        yield "It was trained elsewhere, on what is not known here: the figures may rest on rows it has seen."
    else:
        yield f"It was trained on {found.rows('train'):,} rows of one kind. Other prompts were not tried."
    if found.evaluation:
        yield "The figures come from rows held out of the same data. How it does on other data is not known."
    for measure in measures(found.evaluation):
        if measure.majority is not None and measure.caution.endswith("not beaten"):
            yield f"Its {measure.label} is no better than always giving the commonest answer."
    shared = found.data.get("leakage", {}).get("validation", {}).get("masked_share", 0)
    if shared:
        words = "of the validation rows stand in training but for numbers and hex, which flatters the figures."
        yield f"{percent(shared)} {words}"
    if not found.elsewhere:
        yield f"In training no row was longer than {recipe.prompt.sequence_len} tokens, prompt and answer together."
    yield "It can be wrong and sound sure. The limits of the base model are its limits too."


def quoted(words: str) -> str:
    """A string literal, good in Python as in JSON."""
    return json.dumps(words, ensure_ascii=False)


def text(words: Any) -> str:
    """Prose without HTML."""
    return str(words).replace("&", "&amp;").replace("<", "&lt;").strip()


def cell(words: Any) -> str:
    """A cell of a Markdown table: one line, no HTML, no column of its own."""
    return " ".join(text(words).split()).replace("|", "\\|")


def fenced(words: str, language: str = "") -> str:
    """A code block whose fence no line of the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{words}\n{fence}"
