"""What a teacher's predictions are kept as, the loss that is learned from them, and the stage that makes them."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sysml_run import teachers
from sysml_run.errors import StageError
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, write_json
from sysml_run.worker import card, models, outcome, prepare, teacher
from sysml_run.worker import taught as taughts
from sysml_run.worker.batches import IGNORED, Collator, answer_logits, label_losses
from sysml_run.worker.data import store
from sysml_run.worker.distill import LEAST, Predictions, divergence, likeliest, taught_losses

from . import finished_run

WORDS = 11
Numbers = NDArray[np.float64]


def drawn(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def softmax(values: Numbers) -> Numbers:
    raised = np.exp(values - values.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def wanted(
    logits: Numbers, labels: NDArray[np.int64], theirs: Numbers, k: int, alpha: float, temperature: float
) -> tuple[float, Numbers]:
    """The sum of the losses and its gradient, written down position by position."""
    total, gradient = 0.0, np.zeros_like(logits)
    for place in np.ndindex(*labels.shape):
        if labels[place] == IGNORED:
            continue
        plain, soft = softmax(logits[place]), softmax(logits[place] / temperature)
        taught = softmax(theirs[place] / temperature)
        kept = np.argsort(-taught)[:k]
        others = np.setdiff1d(np.arange(len(taught)), kept)
        apart = float((taught[kept] * np.log(taught[kept] / soft[kept])).sum())
        slope = soft - taught
        if len(others):
            share, own = taught[others].sum(), soft[others].sum()
            apart += float(share * np.log(share / own))
            slope[others] = soft[others] * (1 - share / own)
        total += alpha * temperature**2 * apart - (1 - alpha) * float(np.log(plain[labels[place]]))
        plain[labels[place]] -= 1
        gradient[place] = alpha * temperature * slope + (1 - alpha) * plain
    return total, gradient


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.5, 1.0, 2.0, 7.5]),
    alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    k=st.sampled_from([1, 4, WORDS - 1, WORDS]),
    share=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_loss_and_gradient_are_those_of_the_formula(
    seed: int, temperature: float, alpha: float, k: int, share: float
) -> None:
    logits, theirs = drawn(3, 5, WORDS, seed=seed).requires_grad_(), drawn(3, 5, WORDS, seed=seed + 1)
    shown = np.random.default_rng(seed)
    labels = np.where(shown.random((3, 5)) < share, IGNORED, shown.integers(0, WORDS, (3, 5)))
    known = torch.from_numpy(labels) != IGNORED
    ids, logprobs = likeliest(theirs[known] / temperature, k)
    losses, parts = taught_losses(torch.from_numpy(labels), logits, ids, logprobs, alpha=alpha, temperature=temperature)
    losses.sum().backward()
    total, gradient = wanted(logits.detach().numpy(), labels, theirs.numpy(), k, alpha, temperature)
    assert float(losses.detach().sum()) == pytest.approx(total, rel=1e-10, abs=1e-10)
    assert torch.equal(losses != 0, known) or alpha in (0.0, 1.0)
    found = logits.grad.numpy()
    np.testing.assert_allclose(found, gradient, rtol=1e-6, atol=1e-12)
    mixed = alpha * temperature**2 * float(parts[1]) + (1 - alpha) * float(parts[0])
    assert mixed == pytest.approx(total, rel=1e-10, abs=1e-10)


def test_single_precision_is_near_it() -> None:
    logits, theirs = drawn(64, WORDS), drawn(64, WORDS, seed=1)
    whole = divergence(logits, *likeliest(theirs / 2, 4), 2.0)
    single = divergence(logits.float(), *likeliest(theirs.float() / 2, 4), 2.0)
    torch.testing.assert_close(single.double(), whole, rtol=1e-4, atol=1e-6)


def test_of_every_word_it_is_the_whole_divergence() -> None:
    logits, theirs = drawn(6, WORDS), drawn(6, WORDS, seed=1)
    found = divergence(logits, *likeliest(theirs / 3, WORDS), 3.0)
    plain = torch.nn.functional.kl_div((logits / 3).log_softmax(-1), (theirs / 3).softmax(-1), reduction="none").sum(-1)
    torch.testing.assert_close(found, plain)
    kept = [divergence(logits, *likeliest(theirs / 3, k), 3.0) for k in range(1, WORDS + 1)]
    assert all((more >= less - 1e-12).all() for less, more in pairwise(kept)), "a bound from below"


@pytest.mark.parametrize("k", [1, 4, WORDS])
def test_a_teacher_that_thinks_the_same_teaches_nothing(k: int) -> None:
    logits = drawn(6, WORDS).float().requires_grad_()
    found = divergence(logits, *likeliest(logits.detach() / 2, k), 2.0)
    assert found.abs().max() < 1e-6
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def losses_of(alpha: float, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits, theirs = drawn(2, 4, WORDS).float().requires_grad_(), drawn(2, 4, WORDS, seed=1).float()
    ids, logprobs = likeliest(theirs[labels != IGNORED] / 2, 3)
    losses, _ = taught_losses(labels, logits, ids, logprobs, alpha=alpha, temperature=2.0)
    losses.sum().backward()
    assert logits.grad is not None
    return losses.detach(), logits.grad


LABELS = torch.tensor([[IGNORED, 3, 1, 4], [1, 5, IGNORED, 9]])


def test_without_weight_it_is_the_plain_loss_bit_for_bit() -> None:
    logits = drawn(2, 4, WORDS).float().requires_grad_()
    plain = label_losses(LABELS, logits)
    plain.sum().backward()
    losses, gradient = losses_of(0.0, LABELS)
    assert torch.equal(losses, plain)
    assert torch.equal(gradient, logits.grad)


def test_with_the_whole_weight_labels_say_only_where() -> None:
    others = torch.where(LABELS == IGNORED, IGNORED, (LABELS + 1) % WORDS)
    for one, other in zip(losses_of(1.0, LABELS), losses_of(1.0, others), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(losses_of(0.9, LABELS), losses_of(0.9, others), strict=True):
        assert not torch.equal(one, other)


def test_words_that_cannot_be_are_no_trouble() -> None:
    theirs, logits = drawn(5, WORDS), drawn(5, WORDS, seed=1).requires_grad_()
    theirs[:, 4:] = -torch.inf
    ids, logprobs = likeliest(theirs, 6)
    assert (logprobs[:, -1] == LEAST).all()
    found = divergence(logits, ids, logprobs, 1.0)
    found.sum().backward()
    assert logits.grad is not None
    assert found.isfinite().all()
    assert logits.grad.isfinite().all()


def test_a_model_with_more_rows_than_words() -> None:
    """Matrices are padded to round sizes: the teacher's has none of the model's last ones."""
    theirs, logits = drawn(5, WORDS), drawn(5, WORDS + 3, seed=1)
    found = divergence(logits, *likeliest(theirs, WORDS), 1.0)
    plain = theirs.softmax(-1)
    whole = (plain * (plain.log() - logits.log_softmax(-1)[:, :WORDS])).sum(-1)
    torch.testing.assert_close(found, whole)


def test_predictions_are_kept_by_row(tmp_path: Path) -> None:
    counts = [2, 0, 3, 1]
    made = Predictions.create(tmp_path / "made", counts, 2)
    ids, logprobs = torch.arange(12).view(6, 2), torch.arange(18.0).view(6, 3)
    made.put([2, 0], ids[:5], logprobs[:5])
    made.put([3, 1], ids[5:], logprobs[5:])
    made.flush()
    found = Predictions(tmp_path / "made")
    assert found.offsets.tolist() == [0, 2, 2, 5, 6]
    assert isinstance(found.ids, np.memmap)
    for rows, places in (([0], [3, 4]), ([2], [0, 1, 2]), ([3, 1, 0], [5, 3, 4])):
        torch.testing.assert_close(found.of(rows)[0], ids[places])
        torch.testing.assert_close(found.of(rows)[1], logprobs[places])


# The stage


def rows(count: int = 24) -> list[dict[str, Any]]:
    words = ["calm", "odd and loud", "grave"]
    return [
        {
            "prompt": f"host {number} is {words[number % 3] * (1 + number % 4)}",
            "completion": f"it is {words[number % 3]}",
        }
        for number in range(count)
    ]


@pytest.fixture
def taught(tmp_path: Path, make_recipe: Callable[..., Recipe], rundir: RunDir) -> Callable[..., Recipe]:
    """A recipe with a teacher, of which the rows are prepared."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))

    def make(prompt: Mapping[str, Any] | None = None, model: Mapping[str, Any] | None = None, **chosen: Any) -> Recipe:
        recipe = make_recipe(
            model={"base_model": "tiny:llama", "dtype": "float32", **(model or {})},
            datasets=[{"path": str(tmp_path / "rows.jsonl"), "type": "prompt_completion"}],
            split={"validation": 0.25},
            prompt={"sequence_len": 64, "packing": False, **(prompt or {})},
            distillation={"teacher": "tiny:qwen2", "top_k": 5, "temperature": 1.5, **chosen},
            hardware={"accelerator": "cpu", "precision": "fp32"},
        )
        (rundir / "data").mkdir(exist_ok=True)
        prepare.run(recipe, rundir)
        return recipe

    return make


def asked_alone(recipe: Recipe, split: Any, number: int, k: int) -> tuple[Any, Any]:
    """What the teacher says of one row, by itself."""
    model = models.load_model(models.model_dir(teachers.as_base(recipe)), recipe, "float32").eval()
    row = split[number]
    with torch.no_grad():
        labels, logits, _ = answer_logits(
            model, Collator(0)([{"input_ids": row["input_ids"], "labels": row["labels"]}])
        )
    return likeliest(logits[labels != IGNORED] / 1.5, k)


def test_the_teacher_is_asked_of_every_row(taught: Callable[..., Recipe], rundir: RunDir, capsys: Any) -> None:
    recipe = taught()
    record = teacher.run(recipe, rundir)
    found = taughts.load(rundir)
    predictions, split = Predictions(found.path), store.load(rundir).split("train")
    assert np.diff(predictions.offsets).tolist() == split["loss_tokens"][:]
    for number in (0, 7, len(split) - 1):
        ids, logprobs = predictions.of([number])
        alone = asked_alone(recipe, split, number, 5)
        assert torch.equal(ids, alone[0])
        torch.testing.assert_close(logprobs, alone[1], rtol=1e-5, atol=1e-5)
    assert (record["cache"], record["rows"], record["positions"]) == ("made", 17, sum(split["loss_tokens"]))
    assert record["bytes"] >= record["positions"] * (8 * 5 + 4)
    assert record["kept_probability"] == pytest.approx(
        float(np.exp(predictions.logprobs[:, :-1]).sum(1).mean()), abs=1e-5
    )
    assert 6 < record["loss"] < 8, "that of a random model of 1024 words"
    assert "5 tokens" in capsys.readouterr().out


def test_what_was_asked_is_found_again(taught: Callable[..., Recipe], rundir: RunDir) -> None:
    first = [teacher.run(taught(), rundir), taughts.load(rundir)]
    stamp = (first[1].path / "ids.npy").stat().st_mtime_ns
    again = [teacher.run(taught(alpha=0.9), rundir), taughts.load(rundir)]
    assert again[0]["cache"] == "hit"
    assert again[1] == first[1]
    assert (again[1].path / "ids.npy").stat().st_mtime_ns == stamp
    others = [taught(top_k=6), taught(temperature=1.0), taught(teacher="tiny:mistral"), taught({"packing": True})]
    paths = {taughts.describe(recipe, store.load(rundir)).path for recipe in others}
    assert len(paths | {first[1].path}) == 5


def test_packed_rows_are_asked_as_they_are_fed(taught: Callable[..., Recipe], rundir: RunDir) -> None:
    plain, recipe = taught(), taught({"packing": True})
    teacher.run(plain, rundir)
    apart, rows = taughts.load(rundir), store.load(rundir).split("train")
    teacher.run(recipe, rundir)
    packed, sequences = taughts.load(rundir), store.load(rundir).split("packed")
    assert len(sequences) < len(rows)
    found = Predictions(packed.path)
    assert np.diff(found.offsets).tolist() == sequences["loss_tokens"][:]
    texts = {tuple(row["input_ids"]): number for number, row in enumerate(rows)}
    for number, sequence in enumerate(sequences):
        stops = np.cumsum(sequence["seq_lengths"])
        numbers = [texts[tuple(part.tolist())] for part in np.split(np.array(sequence["input_ids"]), stops[:-1])]
        torch.testing.assert_close(found.of([number])[1], Predictions(apart.path).of(numbers)[1], rtol=1e-4, atol=1e-4)


def test_a_stopped_teacher_goes_on_where_it_was(
    taught: Callable[..., Recipe], rundir: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(teacher, "TOKENS_A_BATCH", 80)
    recipe = taught()
    teacher.run(recipe, rundir)
    whole, calls = taughts.load(rundir).path, list[int]()
    kept = {name: (whole / name).read_bytes() for name in ("ids.npy", "logprobs.npy", "offsets.npy", "facts.json")}
    for file in whole.iterdir():
        file.unlink()
    whole.rmdir()
    ask = teacher.Teacher.__call__

    def stop(self: teacher.Teacher, rows: Sequence[Mapping[str, Any]]) -> Any:
        calls.append(len(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return ask(self, rows)

    monkeypatch.setattr(teacher.Teacher, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        teacher.run(recipe, rundir)
    assert not whole.exists()
    with pytest.raises(StageError, match="are gone"):
        taughts.load(rundir)
    monkeypatch.setattr(teacher.Teacher, "__call__", lambda self, rows: (calls.append(len(rows)), ask(self, rows))[1])
    teacher.run(recipe, rundir)
    assert "going on after 3 batches" in capsys.readouterr().out
    assert sum(calls) == 17 + calls[3], "no batch was asked twice but the one it was stopped in"
    for name, content in kept.items():
        assert (whole / name).read_bytes() == content, name


def test_a_teacher_of_other_words_is_refused(
    taught: Callable[..., Recipe], rundir: RunDir, tokenizer_folder: Path
) -> None:
    recipe = taught(teacher=str(tokenizer_folder))
    prepared = store.load(rundir)
    with pytest.raises(StageError, match="has another vocabulary") as error:
        teacher.make(recipe, prepared, taughts.describe(taught(), prepared))
    assert error.value.hint == "name a teacher with the tokenizer of the base model"


def test_a_teacher_whose_weights_are_too_few_is_refused(taught: Callable[..., Recipe]) -> None:
    with pytest.raises(StageError, match="of 1024 tokens, and its tokenizer has 1025"):
        teacher.load_teacher(taught(), 1025, 5)


def test_rows_of_the_matrix_that_are_no_words_are_cut(taught: Callable[..., Recipe], rundir: RunDir) -> None:
    """Publishers round matrices up; a teacher of a larger size may have more of such rows than the model."""
    recipe = taught()
    row = {name: store.load(rundir).split("train")[0][name] for name in ("input_ids", "labels")}
    ids, logprobs, _ = teacher.load_teacher(recipe, 700, 700)([row])
    assert int(ids.max()) < 700
    assert torch.allclose(logprobs.exp().sum(-1), torch.ones(len(ids)), atol=1e-5)
    assert (logprobs[:, -1] == LEAST).all()


def test_a_full_disk_is_seen_before(tmp_path: Path) -> None:
    teacher.roomy(1000, 64, tmp_path)
    with pytest.raises(StageError, match=r"take 83996000000\.0 GB") as error:
        teacher.roomy(10**15, 10_499, tmp_path)
    assert error.value.hint == "make room"
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(StageError) as error:
        teacher.roomy(1000, free // 4000, tmp_path)
    found = re.fullmatch(r"write distillation.top_k: (\d+), or make room", str(error.value.hint))
    assert found
    assert free // 8000 * 0.9 < int(found[1]) < free // 8000 * 1.1


def test_a_changed_teacher_is_another(taught: Callable[..., Recipe], rundir: RunDir, tmp_path: Path) -> None:
    recipe = taught()
    folder = models.model_dir(teachers.as_base(recipe))
    mine = tmp_path / "mine"
    mine.mkdir()
    for file in folder.iterdir():
        (mine / file.name).write_bytes(file.read_bytes())
    named = taught(teacher=str(mine))
    before = taughts.weights_digest(teachers.as_base(named))
    assert before == taughts.weights_digest(teachers.as_base(recipe))
    weights = bytearray((mine / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (mine / "model.safetensors").write_bytes(bytes(weights))
    assert taughts.weights_digest(teachers.as_base(named)) != before


def test_step_0_is_told_what_to_find(taught: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = taught(alpha=0.25)
    assert taughts.wanted(recipe) == {"teacher": "tiny:qwen2", "temperature": 1.5, "alpha": 0.25, "top_k": 5}
    folder = models.model_dir(teachers.as_base(recipe))
    assert taughts.wanted(taught(teacher=str(folder)))["teacher"] == folder.name, "not where it lies"


def test_the_card_names_the_teacher(tmp_path: Path) -> None:
    chosen = {"teacher": "Qwen/Qwen2.5-7B-Instruct", "alpha": 0.25}
    recipe, rundir = finished_run.make(tmp_path, distillation=chosen)
    record = {"started": "2026-11-20T10:00:30+00:00", "seconds": 9.5, "license": "apache-2.0"}
    write_json(rundir.record("teacher"), record)
    said = dict(card.training(recipe, outcome.read(rundir)))
    assert said["Teacher"] == "Qwen/Qwen2.5-7B-Instruct, weight 0.25 beside the labels, temperature 2"
    assert said["Licence of the teacher"] == "apache-2.0"
    rundir.record("teacher").unlink()
    assert "Teacher" not in dict(card.training(recipe, outcome.read(rundir)))
