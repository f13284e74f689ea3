"""The report: one page that needs nothing else, whatever a model has answered and whatever the run lacks."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sysml_run import schedule
from sysml_run.recipe import Recipe
from sysml_run.rundir import RunDir, read_json, write_json, write_text
from sysml_run.worker import figures, outcome, report

from . import finished_run

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Text, tags and ids of a page; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.text += " " if tag in ("th", "td", "dt", "dd", "span") else ""
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def made(recipe: Recipe, rundir: RunDir) -> Page:
    report.run(recipe, rundir)
    return Page((rundir / "report.html").read_text(encoding="utf-8"))


def answered(rundir: RunDir, **fields: Any) -> None:
    finished_run.lines(rundir / "generations.jsonl", [finished_run.generation(1) | fields])


def test_needs_nothing_else(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    page = made(recipe, rundir)
    assert not page.seen & {"script", "link", "img", "iframe", "object", "form", "base"}
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert len(page.ids) == len(set(page.ids))
    html = (rundir / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\((?!#)", html)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        recipe, rundir = finished_run.make(tmp_path / name)
        report.run(recipe, rundir)
        paths = [rundir / "report.html", *sorted((rundir / "figures").iterdir())]
        found.append({path.name: path.read_bytes() for path in paths})
    assert found[0] == found[1]
    assert set(found[0]) == {"report.html", "loss.svg", "learning_rate.svg", "tokens_per_second.svg", "lengths.svg"}


def test_says_what_came_of_it(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    text = " ".join(made(recipe, rundir).text.split())
    for words in (
        "Validation loss 1.774 0.113",
        "0.0 % 81.2 %",
        "always the commonest answer: 46.5 %",
        "risk_score mean error \N{EN DASH} 6.03",
        "one answer is 3.1 points",
        "no logit differs by more than 3.1e-05 (limit 0.01)",
        "451 rows were read, 432 kept. Left out: not a row 4, too long 3, where 12.",
        "3 repeat another word for word, 41 but for numbers and hex",
        "Template of the prompt: mistral v3, sysml-run's own mistral.jinja.",
        "… but for numbers and hex 0 … the same after a random split 70",
        "Optimizer torch.optim.adamw.AdamW",
        "Micro batch x accumulation x devices 4 x 2 x 1",
        "Trainable parameters 4,884,480",
        "The first 8 of 32 validation rows",
        "loss of the expected answer 1.800 → 0.080",
        "optimizer.learning_rate 0.001 quickstart.yaml:",
        "seed 42 default",
        "training.gradient_accumulation_steps 2 derived: effective_batch_size 8 / 4 rows a step",
        "train 2 min 31 s",
        "torch 2.13.0",
    ):
        assert words in text, words
    assert str(tmp_path) not in text


def test_a_share_that_does_not_beat_the_commonest_answer_is_marked(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    found = read_json(rundir.evaluation)
    found["after"] |= {"severity.accuracy": 0.4651, "loss": 3.0}
    write_json(rundir.evaluation, found)
    text = made(recipe, rundir).text
    assert "which is not beaten" in text
    assert "worse" in text


HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(1)"></pre></html>{{ 7 * 7 }}{% raw %}&lt;'


def test_memory_stands_beside_what_was_predicted(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    assert "Memory at the peak" not in made(recipe, rundir).text
    memory = {"predicted": {"total": 2 * 10**9}, "measured": {"process": 10**9}, "longest_row": 203}
    write_json(rundir.record("train"), read_json(rundir.record("train")) | {"memory": memory})
    words = "predicted 2.00 GB for rows of 256 tokens, of which the longest had 203 (0.50 times as much)"
    assert f"Memory at the peak 1.00 GB of one process, {words}" in made(recipe, rundir).text


def test_test_rows_and_classes_have_tables_of_their_own(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    assert "Test rows" not in made(recipe, rundir).text
    f1 = {"rows": 7, "precision": None, "recall": 0.25, "f1": 0.125}
    many = {f"class-{at}": {"before": f1, "after": f1 | {"f1": 0.5}} for at in range(14)}
    few = {"<b>": {"before": f1, "after": f1 | {"precision": 1.0}}}
    test = {"rows": 9, "generated": 0, "before": {"loss": 2.0}, "after": {"loss": 1.0}}
    more = {"test": test, "classes": {"severity": many, "x": few}}
    write_json(rundir.evaluation, read_json(rundir.evaluation) | more)
    text = " ".join(made(recipe, rundir).text.split())
    assert "Test rows Before After Change Test loss 2.000 1.000" in text
    assert "Held out of training and of every choice. Loss on 9 test rows; no answers were generated." in text
    assert "Classes of severity" in text
    assert "class-0 7 0.125 0.500 \N{EN DASH} 25.0 %" in text
    assert "class-11" in text
    assert "class-12" not in text
    assert "The 12 commonest of 14" in text
    assert "<b> 7 0.125 0.125 100.0 % 25.0 %" in text


@pytest.mark.parametrize("field", ["id", "prompt", "expected", "before", "after"])
def test_answers_are_text_and_nothing_else(tmp_path: Path, field: str) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    answered(rundir, **{field: HOSTILE})
    page = made(recipe, rundir)
    assert HOSTILE in page.text
    assert not page.seen & {"script", "img"}


def test_names_of_the_recipe_and_the_data_are_text_too(tmp_path: Path) -> None:
    dataset = {"path": "findings.tar.gz", "type": "sysscan.finding", "map": {"system": HOSTILE}}
    recipe, rundir = finished_run.make(tmp_path, description=HOSTILE, datasets=[dataset])
    data = finished_run.data_report() | {"warnings": [HOSTILE]}
    data["balance"] = {HOSTILE: {HOSTILE: {"train": 1, "validation": 0, "test": 0}}}
    data["rows"]["dropped"] = {HOSTILE: 1}
    write_json(rundir.data / "report.json", data)
    files = [{"name": HOSTILE, "size": 1, "sha256": "00"}]
    write_json(rundir.record("prepare"), read_json(rundir.record("prepare")) | {"files": files})
    train = read_json(rundir.record("train"))
    write_json(rundir.record("train"), train | {"step0": {HOSTILE: HOSTILE}, "versions": {HOSTILE: HOSTILE}})
    page = made(recipe, rundir)
    assert page.text.count("<script>alert(1)</script>") >= 9
    assert not page.seen & {"script", "img"}


def test_characters_without_a_shape_are_written_out(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    odd = "a\x00b\x1b[31mc\u202ed\u200be\udc00f\tg\n"
    row = finished_run.generation(1) | {"after": odd}
    write_text(rundir / "generations.jsonl", json.dumps(row) + "\n")
    text = made(recipe, rundir).text
    assert r"a\u0000b\u001b[31mc\u202ed\u200be\udc00f" + "\tg\n" in text


def test_long_answers_are_cut_and_say_so(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    answered(rundir, after="x" * 5000, before="")
    text = made(recipe, rundir).text
    assert "x" * 2000 + "\n… 3,000 more characters in generations.jsonl" in text
    assert "x" * 2001 not in text
    assert "The answer is empty." in text


def test_rows_without_an_answer_say_so(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    answered(rundir, before=None, after=None, before_loss=None, after_loss=None)
    assert made(recipe, rundir).text.count("No answer was generated for this row.") >= 2


def test_a_run_without_generation_adapter_or_evaluation(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"lora": None, "evaluation": None, "description": ""}
    recipe, rundir = finished_run.make(tmp_path, **sections)
    for name in ("evaluation.json", "generations.jsonl", "worst_rows.jsonl", "metrics.jsonl", "data/report.json"):
        (rundir / name).unlink()
    for path in (rundir / "records").iterdir():
        path.unlink()
    text = " ".join(made(recipe, rundir).text.split())
    for words in (
        "full fine-tune",
        "Nothing was measured before and after",
        "No training step was logged.",
        "No check was recorded.",
        "There is no data report.",
        "No answers were generated",
        "No rows were measured one by one.",
        "No stage has left a record.",
    ):
        assert words in text, words
    assert list((rundir / "figures").iterdir()) == []


def test_metrics_of_a_run_that_blew_up_or_was_killed(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    lines = [{"step": 1, "epoch": 0.1, "loss": 2.0}, {"step": 2, "epoch": 0.2, "loss": math.nan}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo'
    write_text(rundir.metrics, text)
    write_json(rundir.evaluation, {"rows": 4, "before": {"loss": 2.0}, "after": {"loss": math.nan}})
    page = made(recipe, rundir)
    assert not (rundir / "figures" / "learning_rate.svg").exists()
    assert (rundir / "figures" / "loss.svg").exists()
    assert "worse" in page.text


def test_many_values_of_a_field_are_summed_up(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    counts = {str(number): {"train": 10, "validation": 1, "test": 0} for number in range(20)}
    write_json(rundir.data / "report.json", finished_run.data_report() | {"balance": {"category": counts}})
    assert "8 more 80 8" in " ".join(made(recipe, rundir).text.split())


def test_every_setting_is_there_once(tmp_path: Path) -> None:
    recipe, rundir = finished_run.make(tmp_path)
    text = made(recipe, rundir).text
    for pointer in read_json(rundir.recipe)["sources"]:
        assert text.count(f"\n {pointer}\n") == 1, pointer


class TestFigures:
    def test_a_long_run_is_thinned_to_means(self) -> None:
        points = [(float(step), float(step % 2)) for step in range(1, 6001)]
        thin = figures.thinned(points)
        assert len(thin) == 600
        assert {value for _, value in thin} == {0.5}
        assert figures.thinned(points[:5]) == points[:5]

    @pytest.mark.parametrize(("longest", "where"), [(64, "dashed line"), (4096, "beyond the axis")])
    def test_the_allowed_length_is_marked(self, longest: int, where: str) -> None:
        svg = figures.lengths({"train": {"edges": [0, 20, 40], "counts": [3, 4]}}, longest)
        assert svg is not None
        assert f"{where}: sequence_len {longest}" in svg

    def test_nothing_to_draw(self) -> None:
        assert figures.loss([], {}) is None
        assert figures.learning_rate([{"step": 1, "learning_rate": None}]) is None
        assert figures.lengths({"test": {"edges": [0, 1], "counts": [0]}}, 10) is None

    def test_the_schedule_is_drawn_under_what_was_logged(self, tmp_path: Path) -> None:
        recipe, rundir = finished_run.make(tmp_path)
        found = outcome.read(rundir)
        steps = found.train["step0"]["steps"]
        planned = report.planned(found, recipe)
        assert [step for step, _ in planned] == [*range(1, steps + 1)]
        warm = schedule.warmup(recipe.optimizer, steps)
        assert planned[warm] == (warm + 1, 1e-3)  # the step after the warm-up is the first at the full rate
        svg = report.draw(found, recipe)["learning_rate"]
        assert "schedule" in svg
        assert "logged" in svg

    def test_a_schedule_that_losses_decide_is_not_drawn_ahead(self, tmp_path: Path) -> None:
        optimizer = {"name": "adamw", "learning_rate": 1e-3, "lr_scheduler": "reduce_lr_on_plateau"}
        recipe, rundir = finished_run.make(tmp_path, optimizer=optimizer)
        found = outcome.read(rundir)
        assert report.planned(found, recipe) == []
        assert "schedule" not in report.draw(found, recipe)["learning_rate"]

    def test_colours_follow_the_page(self) -> None:
        svg = figures.speed([{"step": step, "tokens_per_second": 5.0} for step in range(3)])
        assert svg is not None
        assert "#23649e" in svg
        placed = figures.inline(svg, "Speed")
        assert "var(--first)" in placed
        assert not re.search(r"#[0-9a-f]{6}", placed)
        assert placed.startswith('<svg role="img" aria-label="Speed"')
        assert "width" not in placed[: placed.index(">")]

    def test_ticks(self) -> None:
        assert [figures.short(value) for value in (0, 0.0005, 2e-5, 0.25, 600)] == [
            "0",
            "0.0005",
            "2e-5",
            "0.25",
            "600",
        ]
