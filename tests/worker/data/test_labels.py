"""Conversation to labels: what is learned is the answer and its end token, after the very prompt inference will see."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run.errors import DataError
from sysml_run.worker.data.labels import IGNORED, Labeller, Row, one_bos
from sysml_run.worker.data.render import RefusedError, Renderer
from sysml_run.worker.data.tokens import Encoder

PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PLAIN += "{% if add_generation_prompt %}assistant: {% endif %}"
BLANK = PLAIN.replace(": ", "\n\n")
BOS = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
BOS += "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
UNSTABLE = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + PLAIN


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def label(
    tokenizer: Any, messages: list[dict[str, str]], template: str = "tokenizer", train_on: str = "completion"
) -> Row:
    rendered = Renderer(tokenizer, template, train_on)(messages, "a:0")
    encoder = Encoder(tokenizer)
    return Labeller(encoder, train_on)(rendered, encoder([rendered])[0], "a:0")


def learned(tokenizer: Any, row: Row) -> str:
    return str(tokenizer.decode([token for token in row.labels if token != IGNORED]))


def test_the_answer_and_its_end_token_are_learned_and_end_the_row(tokenizer: Any) -> None:
    row = label(tokenizer, talk("port 22?", '{"severity":"high"}'))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == row.ids[-1] == row.labels[-1]
    assert learned(tokenizer, row) == '{"severity":"high"}<|im_end|>'
    assert row.completion == '{"severity":"high"}'
    assert row.prompt == "<|im_start|>user\nport 22?<|im_end|>\n<|im_start|>assistant\n"
    assert row.end == "<|im_end|>"
    assert row.loss_tokens == len(row.ids) - row.prompt_len
    assert not row.apart


def test_train_on(tokenizer: Any) -> None:
    messages = talk("a?", "one", "b?", "two")
    texts = {
        how: learned(tokenizer, label(tokenizer, messages, train_on=how)) for how in ("completion", "assistant", "all")
    }
    assert texts["completion"] == "two<|im_end|>"
    assert texts["assistant"] == "one<|im_end|>two<|im_end|>"
    assert texts["all"] == tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    rows = [label(tokenizer, messages, train_on=how) for how in texts]
    assert len({(tuple(row.ids), row.prompt_len) for row in rows}) == 1


def test_end_token_is_added_where_the_template_has_none(tokenizer: Any) -> None:
    row = label(tokenizer, talk("a?", "x1"), PLAIN)
    assert learned(tokenizer, row) == "x1<|im_end|>"
    assert row.ids.count(tokenizer.eos_token_id) == 1


def test_a_token_over_the_boundary_is_split(tokenizer: Any) -> None:
    """The space before the answer joins it when both are tokenized together; inference never sees that token."""
    row = label(tokenizer, talk("a?", "process on"), PLAIN)
    assert row.apart
    assert row.ids[: row.prompt_len] == tokenizer(row.prompt, add_special_tokens=False).input_ids


def test_another_split_of_the_prompt_is_seen_even_where_no_token_crosses(tokenizer: Any) -> None:
    """Two newlines are one token at the end of a text and two before a word."""
    whole = tokenizer("assistant\n\n{", add_special_tokens=False).input_ids
    alone = tokenizer("assistant\n\n", add_special_tokens=False).input_ids
    assert whole[: len(alone)] != alone
    row = label(tokenizer, talk("a?", "{}"), BLANK)
    assert row.apart
    assert row.ids[: row.prompt_len] == tokenizer(row.prompt, add_special_tokens=False).input_ids


def test_one_begin_token(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "be brief"}, *talk("a?", "b")]
    assert label(tokenizer, messages, BOS).ids.count(tokenizer.bos_token_id) == 1
    doubled = one_bos(label(tokenizer, messages, "{{ bos_token }}" + BOS), tokenizer.bos_token_id, "<s>")
    assert doubled.ids[: doubled.prompt_len] == tokenizer(doubled.prompt, add_special_tokens=False).input_ids
    assert doubled.ids[:2].count(tokenizer.bos_token_id) == 1
    assert learned(tokenizer, doubled) == "b<|im_end|>"
    assert doubled.ids[doubled.prompt_len :] == doubled.labels[doubled.prompt_len :]


def test_an_end_token_in_the_text_is_not_the_templates(tokenizer: Any) -> None:
    assert learned(tokenizer, label(tokenizer, talk("a?", "b<|im_end|>"), PLAIN)) == "b<|im_end|><|im_end|>"
    for answer in ("b<|im_end|>", "<|im_end|>", ">", "|>"):
        assert learned(tokenizer, label(tokenizer, talk("a?", answer))) == f"{answer}<|im_end|>"


def test_templates_that_will_not_do(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"not prefix-stable.*row a:0"):
        label(tokenizer, talk("a?", "b"), UNSTABLE)
    with pytest.raises(RefusedError, match="no system here"):
        label(tokenizer, [{"role": "system", "content": "s"}, *talk("a?", "b")], STRICT)
    with pytest.raises(DataError, match="neither a name nor"):
        label(tokenizer, talk("a?", "b"), "no_such_template")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        label(tokenizer, talk("a?", "b"))


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), min_size=1, max_size=40) | st.sampled_from(
    ["🦀 crab", "é", " x", "x ", "a\n\nb", "{}", "\n\n1", "\u200b", "中文", "e\u0301"]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=2, max_size=6), st.sampled_from(["tokenizer", PLAIN, BLANK, BOS]))
def test_learned_text_and_prompt_ids_of_random_rows(tokenizer: Any, texts: list[str], template: str) -> None:
    messages = talk(*texts[: len(texts) // 2 * 2])
    answer = messages[-1]["content"]
    row = label(tokenizer, messages, template)
    told = learned(tokenizer, row)
    assert told.endswith("<|im_end|>")
    assert told.removesuffix("<|im_end|>") == row.completion
    assert row.completion == answer or (template in (PLAIN, BLANK) and row.completion == answer.rstrip())
    assert row.ids[: row.prompt_len] == tokenizer(row.prompt, add_special_tokens=False).input_ids
    every = learned(tokenizer, label(tokenizer, messages, template, "assistant"))
    if template == "tokenizer":
        assert every == "".join(turn["content"] + "<|im_end|>" for turn in messages if turn["role"] == "assistant")
