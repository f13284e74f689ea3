"""What the card and the report say of a base that training held in 4 or 8 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sysml_run.rundir import RunDir, read_json, write_json
from sysml_run.worker import card, outcome, report

from . import finished_run

STEP0 = {"quantized_layers": 210, "quantized_parameters": 106_168_320, "quantized_as": "nf4"}
MOVED = {
    "load": "nf4",
    "rows": 64,
    "base_loss": 3.1438,
    "loss": 0.2723,
    "merged_loss": 0.2878,
    "loss_difference": 0.0155,
    "tolerance": 0.7179,
    "max_logit_difference": 17.5,
    "top_token_agreement": 0.81,
}


@pytest.fixture
def made(tmp_path: Path) -> tuple[str, RunDir]:
    """The card of a run on a base in nf4."""
    recipe, rundir = finished_run.make(tmp_path, quantization={"load": "nf4"})
    train, evaluation = read_json(rundir.record("train")), read_json(rundir.evaluation)
    write_json(rundir.record("train"), train | {"step0": train["step0"] | STEP0})
    write_json(rundir.evaluation, evaluation | {"merged": evaluation["merged"] | {"quantized_base": MOVED}})
    (tmp_path / "package").mkdir()
    write_json(tmp_path / "package" / "tokenizer_config.json", {})
    return card.make(recipe, outcome.read(rundir), tmp_path / "package"), rundir


def test_the_card_says_which_base_was_trained_and_which_is_packed(made: tuple[str, RunDir]) -> None:
    _, front, body = made[0].split("---\n", 2)
    assert yaml.safe_load(front)["tags"] == ["sysml-run", "lora", "qlora"]
    said = " ".join(body.split())
    assert "A QLoRA fine-tune, trained on its base in nf4 and merged into it unquantized, of" in said
    assert "Both columns are of the base in nf4, as it was trained on; the weights in this folder are not" in said
    assert "On 64 rows their loss is 0.288, where the adapter on the base in nf4 has 0.272" in said
    assert "(it may be higher by 0.72 at most)" in said
    assert "| Method | LoRA, rank 16, on a base in nf4 |" in body
    assert "| Base in training | nf4 through bitsandbytes: 106,168,320 numbers of 210 layers |" in body


def test_the_report_says_it_too(made: tuple[str, RunDir]) -> None:
    _, rundir = made
    page = report.page(outcome.read(rundir), {})
    assert "LoRA, rank 16, on a base in nf4" in page
    assert "Before and after are of the base in nf4, as it was trained on." in page
    assert "the loss on 64 rows is 0.288, where the adapter on the base in nf4 has 0.272." in page


def test_of_an_ordinary_run_nothing_of_it_is_said(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    (tmp_path / "package").mkdir()
    write_json(tmp_path / "package" / "tokenizer_config.json", {})
    found = outcome.read(rundir)
    for text in (card.make(recipe, found, tmp_path / "package"), report.page(found, {})):
        assert not [word for word in ("nf4", "QLoRA", "qlora", "unquantized", "bitsandbytes:") if word in text]


def test_test_rows_have_a_table_of_their_own(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    part = {"rows": 9, "generated": 0, "before": {"loss": 2.0}, "after": {"loss": 1.0}}
    write_json(rundir.evaluation, read_json(rundir.evaluation) | {"test": part})
    rundir.model.mkdir(exist_ok=True)
    (rundir.model / "tokenizer_config.json").write_text("{}")
    text = card.make(recipe, outcome.read(rundir), rundir.model)
    assert "On test rows, held out of training and of every choice:" in text
    assert "| test loss | 2.000 | 1.000 |" in text
    assert "Loss on 9 test rows; no answers were generated." in text
