"""Rows that are too long: what is cut, and that the answer with its end token never is."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run.errors import DataError
from sysml_run.recipe import Prompt
from sysml_run.worker.data.conversations import Left
from sysml_run.worker.data.labels import Labeller, Row
from sysml_run.worker.data.length import fit
from sysml_run.worker.data.render import Renderer
from sysml_run.worker.data.tokens import Encoder

from . import small_tokenizers

QUESTION = " ".join(f"w{i}" for i in range(60))
ANSWER = '{"severity":"high"}'


def fitted(tokenizer: Any, limit: int, how: Any, template: str = "tokenizer", answer: str = ANSWER) -> Row | Left:
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
    rendered, encoder = Renderer(tokenizer, template, "completion")(messages, "a:0"), Encoder(tokenizer)
    tokens = encoder([rendered])[0]
    row = Labeller(encoder, "completion")(rendered, tokens, "a:0")
    prompt = Prompt(template, limit, "completion", how, packing=False, padding="dynamic")
    return fit(row, rendered, tokens, prompt, encoder.bos)


def kept(row: Row | Left) -> Row:
    assert isinstance(row, Row)
    return row


def test_short_rows_are_left_alone(tokenizer: Any) -> None:
    row = kept(fitted(tokenizer, 2000, "error"))
    assert row.cut == 0
    assert fitted(tokenizer, len(row.ids), "error") == row


@pytest.mark.parametrize("how", ["left", "right"])
@pytest.mark.parametrize("limit", [30, 60, 90])
def test_answer_and_end_survive(tokenizer: Any, how: str, limit: int) -> None:
    whole, row = kept(fitted(tokenizer, 2000, how)), kept(fitted(tokenizer, limit, how))
    assert len(row.ids) == len(row.labels) == limit
    assert row.cut == len(whole.ids) - limit
    assert row.ids[row.prompt_len :] == whole.ids[whole.prompt_len :] == row.labels[row.prompt_len :]
    assert row.loss_tokens == whole.loss_tokens
    assert tokenizer.decode(row.ids[: row.prompt_len]) == row.prompt


def test_left_cuts_the_start_and_right_the_end_of_the_question(tokenizer: Any) -> None:
    left, right = kept(fitted(tokenizer, 60, "left")), kept(fitted(tokenizer, 60, "right"))
    assert left.prompt.endswith("w59<|im_end|>\n<|im_start|>assistant\n")
    assert "w0 " not in left.prompt
    assert right.prompt.startswith("<|im_start|>user\nw0 w1")
    assert right.prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "w59" not in right.prompt


def test_the_begin_token_stays(tokenizer: Any) -> None:
    row = kept(fitted(tokenizer, 60, "left", "{{ bos_token }}" + tokenizer.chat_template))
    assert row.ids[0] == tokenizer.bos_token_id
    assert len(row.ids) == 60
    assert row.prompt.startswith("<s>")
    assert tokenizer.decode(row.ids[: row.prompt_len]) == row.prompt


def test_right_keeps_what_it_can_where_the_header_does_not_fit(tokenizer: Any) -> None:
    answer = len(kept(fitted(tokenizer, 2000, "right")).ids) - kept(fitted(tokenizer, 2000, "right")).prompt_len
    row = kept(fitted(tokenizer, answer + 2, "right"))
    assert row.prompt_len == 2
    assert row.loss_tokens == answer


def test_rows_that_go(tokenizer: Any) -> None:
    assert fitted(tokenizer, 60, "drop") == Left("too_long")
    assert fitted(tokenizer, 60, "left", answer=QUESTION) == Left("answer_too_long")
    with pytest.raises(DataError, match=r"row a:0 has \d+ tokens and prompt\.sequence_len is 60"):
        fitted(tokenizer, 60, "error")


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"], exclude_characters="<"), max_size=60)
SAID = TEXT.filter(lambda text: text.strip() != "")


@pytest.fixture(scope="module")
def metaspace() -> Any:
    """Puts a begin token in front of every text, which none of the templates below writes."""
    return small_tokenizers.metaspace("first")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(SAID, min_size=2, max_size=6),
    limit=st.integers(8, 60),
    template=st.sampled_from(["none", "alpaca"]),
    how=st.sampled_from(["left", "right"]),
    train_on=st.sampled_from(["completion", "assistant", "all"]),
)
def test_random_rows_that_are_cut(
    metaspace: Any, texts: list[str], limit: int, template: str, how: Any, train_on: str
) -> None:
    """What is left is a start and an end of the whole row, with begin token, answer and end token."""
    encoder = Encoder(metaspace)
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    rendered = Renderer(metaspace, template, train_on)(messages[: len(texts) // 2 * 2], "a:0")
    tokens = encoder([rendered])[0]
    whole = Labeller(encoder, train_on)(rendered, tokens, "a:0")
    prompt = Prompt(template, limit, "completion", how, packing=False, padding="dynamic")
    row = fit(whole, rendered, tokens, prompt, encoder.bos)
    answer = len(whole.ids) - whole.prompt_len
    if answer >= limit and len(whole.ids) > limit:
        assert row == Left("answer_too_long")
        return
    row = kept(row)
    assert row.bos_added
    assert row.cut == max(0, len(whole.ids) - limit) == len(whole.ids) - len(row.ids)
    assert row.ids[row.prompt_len :] == whole.ids[whole.prompt_len :]
    assert row.loss_tokens > 0
    assert len(row.ids) == len(row.labels)
    split = next(n for n in range(len(row.ids) + 1) if row.ids[n:] == whole.ids[n + row.cut :])
    assert row.ids[:split] == whole.ids[:split]
    assert row.labels[-answer:] == whole.labels[-answer:]
    if limit - answer > 1:
        assert row.ids[0] == metaspace.bos_token_id
