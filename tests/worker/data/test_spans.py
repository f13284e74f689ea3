"""Where answers stand in templates that render an earlier turn otherwise once more follows."""

from typing import Any

import pytest

from sysml_run.errors import DataError
from sysml_run.worker.data import spans
from sysml_run.worker.data.render import Renderer

from . import small_tokenizers as small

TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}"
GO = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
LAST_USER = (
    "{% for m in messages if m.role != 'system' %}"
    "{% if loop.revindex <= 2 and m.role == 'user' %}({{ messages[0].content }}){% endif %}"
    + TURN
    + "{% endfor %}"
    + GO
)
COUNTS = "{{ messages | length }}{% for m in messages %}" + TURN + "{% endfor %}" + GO
FORGETS = (
    "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}"
    + TURN.replace("m.content", "m.content.split('</think>')[-1]")
    + "{% else %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + GO
)
SHOUTS = (
    "{% for m in messages %}{% if loop.last %}"
    + TURN
    + "{% else %}"
    + TURN.replace("m.content", "m.content | upper")
    + "{% endif %}{% endfor %}"
    + GO
)
FADES = SHOUTS.replace("{% if loop.last %}", "{% if loop.last or m.role == 'user' %}")
TWICE = "{% if messages | length > 4 %}{{ messages[2].content }}{% endif %}" + LAST_USER
SYSTEM = {"role": "system", "content": "be brief"}


@pytest.fixture(scope="module")
def chatml() -> Any:
    return small.byte_level(small.CHATML, "<|im_end|>", begins=False)


def talk(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def found(tokenizer: Any, template: str, messages: list[dict[str, Any]], train_on: str = "assistant") -> list[str]:
    rendered = Renderer(tokenizer, template, train_on)(messages, "a:0")
    return [rendered.text[span.start : span.end] for span in rendered.answers]


@pytest.mark.parametrize("template", [LAST_USER, LAST_USER.replace(" | trim", "")])
def test_answers_are_found_by_their_marks(chatml: Any, template: str) -> None:
    """Equal and blank-edged answers, and answers that stand in a question too, each at its own place."""
    messages = [SYSTEM, *talk("a?", "b", "b<|im_end|>b", " b \n", "c?", "b")]
    second = "b<|im_end|>\n" if "trim" in template else " b \n<|im_end|>\n"
    assert found(chatml, template, messages) == ["b<|im_end|>\n", second, "b<|im_end|>"]
    rendered = Renderer(chatml, template, "assistant")(messages, "a:0")
    asked = [rendered.text[: span.start] for span in rendered.answers]
    assert all(prompt.endswith("<|im_start|>assistant\n") for prompt in asked)
    assert len(set(asked)) == 3


def test_the_last_answer_needs_no_mark(chatml: Any) -> None:
    messages = talk("a?", "<think>hm</think>b", "c?", "<think>so</think>d")
    assert found(chatml, FORGETS, messages, "completion") == ["<think>so</think>d<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "messages"),
    [
        (FORGETS, talk("a?", "<think>hm</think>b", "c?", "d")),
        (SHOUTS, talk("a?", "b", "c?", "d")),
        (FADES, talk("a?", "b", "c?", "d")),
        (COUNTS, talk("a?", "b", "c?", "d")),
        (TWICE, [SYSTEM, *talk("a?", "b", "c?", "d")]),
        (LAST_USER, [SYSTEM, *talk("a?", "b", "".join(spans.MARKS), "d")]),
    ],
)
def test_what_cannot_be_proven_is_refused(chatml: Any, template: str, messages: list[dict[str, Any]]) -> None:
    """The answer as it was given is not in the row, stands there twice, or there is nothing left to mark it with."""
    with pytest.raises(DataError, match=r"not prefix-stable: .*\(row a:0; .* became ") as caught:
        found(chatml, template, messages)
    assert "train_on: completion" in str(caught.value.hint)


def test_calls_are_marked_at_their_name() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call, call]}
    marked = spans.marked(message, "!")
    assert [each["function"]["name"] for each in marked["tool_calls"]] == ["!f", "f"]
    assert spans.marked({"role": "assistant", "content": " \n"}, "!")["content"] == "! \n"
    assert spans.content(message) == '[{"type": "function", "function": {"name": "f", "arguments": {}}}' + ", " + (
        '{"type": "function", "function": {"name": "f", "arguments": {}}}]'
    )


def test_a_mark_that_changes_the_text_proves_nothing() -> None:
    assert spans.offsets("a!bc!", "!", "abc") == [1, 3]
    assert spans.offsets("a!bc", "!", "abd") is None


def test_an_answer_that_is_said_elsewhere_is_not_taken() -> None:
    """Each proof must hold by itself: the mark inside the answer, the prompt in front, the answer word for word."""
    messages = talk("a?", "b", "c?", "d")

    def early(some: list[dict[str, Any]], *, generation: bool = False) -> str:
        return "".join(turn["content"] for turn in some) + ("!" if generation else "")

    assert spans.located(early, messages, 1, "\ue000", 2, "a?bc?d") is None
    assert spans.by_mark(lambda some, **_: "b" * len(some), messages, [1, 3], "bbbb") is None
