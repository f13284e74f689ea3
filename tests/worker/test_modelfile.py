"""Ollama's Modelfile: with Go's blanks filled in, its template writes what the chat template writes."""

import re
from typing import Any

import pytest

from sysml_run import templates
from sysml_run.worker import modelfile

MISTRAL = (  # the form of Mistral 7B Instruct v0.3, which puts the system's words into the user's turn
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ first }}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
NAMED = {name: (templates.FOLDER / f"{name}.jinja").read_text() for name in ("chatml", "llama3", "alpaca")}
TEMPLATES = {**NAMED, "mistral": MISTRAL}


def filled(go: str, system: str, prompt: str, answer: str) -> str:
    """What Go's text/template makes of the few forms that are used here."""
    choice = re.compile(r"\{\{ if \.System \}\}(.*?)\{\{ else \}\}(.*?)\{\{ end \}\}", re.DOTALL)
    text = choice.sub(lambda found: found[1] if system else found[2], go)
    words = {"System": system, "Prompt": prompt, "Response": answer}
    return re.sub(r"\{\{ \.(\w+) \}\}", lambda found: words[found[1]], text)


def turns(system: str, answer: str = "") -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system else []
    last = [{"role": "assistant", "content": answer}] if answer else []
    return [*first, {"role": "user", "content": "What is 1 + 1?"}, *last]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_the_text_is_the_chat_templates(tokenizer: Any, name: str, system: str) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    found = modelfile.turn(tokenizer)
    assert found is not None
    asked = tokenizer.apply_chat_template(turns(system), tokenize=False, add_generation_prompt=True)
    assert filled(found.go, system, "What is 1 + 1?", "") == asked + found.end
    closed = tokenizer.apply_chat_template(turns(system, "2"), tokenize=False)
    assert filled(found.go, system, "What is 1 + 1?", "2") == closed.replace("] 2", "]2"), "the model writes that blank"


def test_a_begin_token_that_the_tokenizer_adds_is_not_written_twice(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert modelfile.turn(tokenizer).before == "<s>["
    start = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = start
    found = modelfile.turn(tokenizer)
    assert (found.before, found.system) == ("[", ("[", "]["))


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ '{{' }}{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
    ],
)
def test_what_cannot_be_cut_is_left_to_the_gguf(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    assert modelfile.turn(tokenizer) is None
    assert "TEMPLATE" not in modelfile.make(tokenizer, "x.gguf", 512, ["</s>"], None)


def test_the_day_of_packing_is_not_kept_for_ever(tokenizer: Any) -> None:
    tokenizer.chat_template = "Today is {{ strftime_now('%Y') }}.{% for m in messages %}[{{ m.content }}]{% endfor %}"
    text = modelfile.make(tokenizer, "x.gguf", 512, ["</s>"], None)
    assert 'TEMPLATE "' not in text
    assert text.splitlines()[1].startswith("# No TEMPLATE: the chat template writes the day's date")


def test_what_the_file_cannot_hold_is_said_in_it(tokenizer: Any) -> None:
    lines = modelfile.make(tokenizer, "x.gguf", 512, ["</s>", 'say "end"'], 'Write """ twice.').splitlines()
    assert any(line.startswith("# No SYSTEM: ") for line in lines)
    assert any(line.startswith("# No PARAMETER stop ") for line in lines)
    assert [line for line in lines if line.startswith(("SYSTEM", "PARAMETER stop"))] == ['PARAMETER stop "</s>"']


def test_a_template_without_a_system_turn_has_none(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    )
    assert modelfile.turn(tokenizer).system is None


def test_the_whole_file(tokenizer: Any) -> None:
    text = modelfile.make(tokenizer, "m-Q8_0.gguf", 512, ["<|im_end|>"], "You are brief.")
    assert text == (
        "FROM ./m-Q8_0.gguf\n"
        'TEMPLATE """{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n<|im_start|>user\n'
        "{{ else }}<|im_start|>user\n{{ end }}{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
        '{{ .Response }}<|im_end|>\n"""\n'
        'SYSTEM """You are brief."""\n'
        "PARAMETER num_ctx 512\nPARAMETER temperature 0\n"
        'PARAMETER stop "<|im_end|>"\n'
    )
