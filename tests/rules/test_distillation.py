"""A teacher that can teach: its vocabulary by files and sizes at hand, the hardware, and what --smoke makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sysml_run import teachers

WORDS = {"<s>": 0, "a": 1, "b": 2, "ab": 3}


def model(folder: Path, words: Any = None, added: dict[str, int] | None = None, **config: Any) -> Path:
    """A model folder with a tokenizer of these words, if any."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 32000} | config))
    if words is not None:
        tokens = [{"id": number, "content": text} for text, number in (added or {}).items()]
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}, "added_tokens": tokens}))
    return folder


def asked(check, student: Path | str, teacher: Path | str, *more: str) -> list[str]:
    problems = check(f"model.base_model={student}", f"distillation.teacher={teacher}", *more)
    return [problem.message for problem in problems if problem.pointer == "distillation.teacher"]


def test_the_same_words(check, tmp_path: Path) -> None:
    student = model(tmp_path / "student", WORDS)
    assert asked(check, student, model(tmp_path / "same", dict(WORDS))) == []
    assert asked(check, student, model(tmp_path / "more", WORDS, {"<pad>": 4, "<s>": 0}, vocab_size=40000)) == []
    unigram = [[text, -1.5] for text in WORDS]
    assert asked(check, student, model(tmp_path / "unigram", unigram)) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"<s>": 0, "a": 2, "b": 1, "ab": 3}, "2 of 4 tokens differ; 'a', 1, is 2 in its vocabulary"),
        ({"<s>": 0, "a": 1, "b": 2}, "1 of 4 tokens differ; 'ab', 3, is unknown to it"),
        ([["a", 0.0]], "4 of 4 tokens differ; '<s>', 0, is unknown to it"),
    ],
)
def test_other_words(words: Any, said: str, check, tmp_path: Path) -> None:
    student, teacher = model(tmp_path / "student", WORDS), model(tmp_path / "teacher", words)
    assert asked(check, student, teacher) == [f"has another vocabulary: {said}"]


def test_without_their_files_sizes_are_compared(check, tmp_path: Path) -> None:
    student = model(tmp_path / "student")
    assert asked(check, student, model(tmp_path / "padded", vocab_size=32000 + teachers.PADDING)) == []
    known = "knows 33,025 tokens where the model that learns knows 32,000"
    assert asked(check, student, model(tmp_path / "other", vocab_size=33025)) == [known]
    assert asked(check, student, model(tmp_path / "strange", model_type="strange")) == []
    assert asked(check, student, "owner/unknown") == []
    assert asked(check, "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-7B-Instruct") == [], "rounded up to 128 and to 256"
    mistral = "knows 32,000 tokens where the model that learns knows 32,768"
    assert mistral in asked(check, "mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mixtral-8x7B-Instruct-v0.1")


def test_a_tokenizer_of_its_own_is_what_counts(check, tmp_path: Path) -> None:
    student, teacher = model(tmp_path / "student"), model(tmp_path / "teacher", WORDS)
    other = model(tmp_path / "words", {"b": 0})
    assert asked(check, student, teacher, f"model.tokenizer={teacher}") == []
    assert len(asked(check, student, teacher, f"model.tokenizer={other}")) == 1


def test_a_tiny_teacher_fits_any(check, tmp_path: Path) -> None:
    assert asked(check, model(tmp_path / "student", WORDS), "tiny:qwen2") == []
    assert asked(check, "tiny:llama", "tiny:qwen2") == []


def test_files_that_cannot_be_read_are_said_elsewhere(check, tmp_path: Path) -> None:
    student, teacher = model(tmp_path / "student", WORDS), model(tmp_path / "teacher", WORDS)
    for text in ("{", "[]", '{"model": {}}'):
        (teacher / "tokenizer.json").write_text(text)
        assert asked(check, student, teacher) == []
    (tmp_path / "m.gguf").write_bytes(b"")
    assert asked(check, tmp_path / "m.gguf", teacher) == []


def test_no_teacher_on_tpus(check) -> None:
    tpu = "hardware={accelerator: tpu, topology: v5e-8}"
    problems = check("distillation.teacher=tiny:qwen2", "model.dtype=bfloat16", tpu)
    assert [problem.pointer for problem in problems if "TPUs" in problem.message] == ["distillation"]
    assert not any("TPUs" in problem.message for problem in check("distillation.teacher=tiny:qwen2"))
