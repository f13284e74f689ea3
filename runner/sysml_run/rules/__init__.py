"""What JSON Schema cannot say: keys that contradict each other, what is not there, branches not built yet."""

from __future__ import annotations

from dataclasses import replace

from sysml_run.document import Document
from sysml_run.errors import Problem
from sysml_run.position import pointer
from sysml_run.recipe import Recipe

from . import (
    adapters,
    batches,
    data,
    distillation,
    evaluation,
    extras,
    hardware,
    model,
    schedule,
    search,
    texts,
    tpu,
    zero,
)
from .data import there
from .finding import Finding, Rule

__all__ = ["RULES", "Finding", "Rule", "check", "there"]

SWAPPED = "--smoke"  # the source of values that nobody wrote; a warning about one would be noise

RULES: tuple[Rule, ...] = (
    *(schedule.length, schedule.warmup, schedule.warmup_ends, schedule.min_lr, schedule.cycles),
    schedule.plateau,
    *(schedule.learning_rate, batches.batch, batches.batch_divides, batches.packed_batch),
    *(evaluation.measured, evaluation.best_is_saved, evaluation.best_is_lost, evaluation.stops_at_worst),
    *(evaluation.stops_in_time, evaluation.measured_once, evaluation.saved_once, evaluation.metrics),
    *(evaluation.answer_schema, evaluation.folds, evaluation.said_twice, texts.redactions, texts.balanced),
    *(data.shares, data.split_fits, data.used_to_train, data.validation_rows, data.template, data.buckets),
    *(data.hub_name, data.only_of_the_hub),
    *(hardware.half_precision, hardware.flash_attention, hardware.liger, hardware.card, hardware.card_without_bf16),
    *(tpu.tpu_slice, tpu.tpu_runtime, tpu.tpu_dtype, tpu.tpu_quantized, tpu.tpu_optimizer, tpu.tpu_attention),
    *(tpu.tpu_shapes, tpu.tpu_rows, zero.offloaded_parameters, zero.offloaded_optimizer),
    *(zero.offload_on_cpu, zero.zero_alone, zero.zero_int8, zero.zero_adafactor),
    *(model.models, model.trained_elsewhere, model.revision, model.remote_code, model.positions, model.access),
    *(adapters.targets_match, adapters.head_is_not_adapted, adapters.experts_are_plain),
    adapters.experts_keep_their_bits,
    *(extras.quantized_base, distillation.teacher_counts, distillation.teacher_is_another),
    *(distillation.teacher_vocabulary, distillation.teacher_on_tpu),
    *(search.search_space, search.search_keys, search.search_values, search.search_metric),
    *(data.rows_are_mapped, data.data_is_here, extras.not_built, extras.export_tools, extras.trackers),
    extras.metric_tools,
    *(extras.export_twice, extras.export_model, extras.export_groups),
    *(extras.export_weighed, extras.export_tokenizer),
)

# What a mere check leaves out: where a recipe is looked at says nothing of what is installed where it runs.
RUNNING: tuple[Rule, ...] = (extras.not_built, extras.export_tools, extras.export_tokenizer, extras.metric_tools)


def check(recipe: Recipe, document: Document, *, running: bool, here: bool | None = None) -> list[Problem]:
    """What every rule finds, in file order.

    `running` is for plan and run: models and rows that are not here are then errors, in a mere check warnings, and
    what this version or this machine lacks is then asked. A plan that is only looked at says False to `here`: models
    and rows may be where it is to run.
    """
    here = running if here is None else here
    rules = RULES if running else [rule for rule in RULES if rule not in RUNNING]
    findings = _once([finding for rule in rules for finding in rule(recipe) if _said(finding, document)])
    problems = [_problem(finding, document, here) for finding in findings]
    asked = [problem for problem in problems if problem.severity == "error" or problem.source != SWAPPED]
    return sorted(asked, key=lambda problem: (problem.line is None, problem.line, problem.column))


def _said(finding: Finding, document: Document) -> bool:
    """Whether the recipe says what is only wrong where it is said."""
    return not finding.written or pointer(finding.pointer) in document.values


def _once(findings: list[Finding]) -> list[Finding]:
    """Of a place where something is wrong, or not built, it is not also said what is missing."""
    said: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda finding: finding.later):
        if finding.severity == "error":
            said.setdefault(finding.pointer, finding)
    return [finding for finding in findings if not finding.later or said[finding.pointer] is finding]


def _problem(finding: Finding, document: Document, here: bool) -> Problem:
    at = pointer(finding.pointer)
    shown = pointer(finding.or_at) if finding.or_at and at not in document.values else at
    place = document.key(shown) if finding.at_key else document.place(shown)
    problem = place.problem(at, finding.message, finding.hint)
    return replace(problem, severity="warning" if finding.later and not here else finding.severity)
