"""What is said against a template without Jinja, Jinja says too; and what Jinja takes is let through."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, TemplateError
from jinja2.parser import Parser

from sysml_run import jinjatext, templates

ENV = Environment(extensions=["jinja2.ext.loopcontrols"])
EXPRESSIONS = {
    "a ===": "nothing stands before =",
    "category = 'mac'": "= sets a value; == compares",
    "a && b": "& means nothing in Jinja",
    "a == 'x": "a ' that is never closed",
    "f(a": "( is never closed",
    "f(a))": ") closes nothing",
    "f(a]": "] closes nothing",
    "(a ~)": "nothing stands before )",
    "a and": "it is unfinished",
    "a b": "nothing stands between a and b",
    "severity is high or a b": "nothing stands between a and b",
    "(a) b": "nothing stands between ) and b",
    " ": "it is unfinished",
}
GOOD = [
    "category != 'mac'",
    "a | mentions('x}', \"y\")",
    "-a.b[1:-1] > f(x=1)",
    "a.not",
    "a if not b else {'c': 1}",
    "a is divisibleby 3 and b is not sameas c",
    "'a' 'b' in c",
    "[]",
]
TEXTS = {
    "{{ q": "{{ has no }}",
    "{{ {'a': [1} }}": "{{ has no }}",
    "{{ {'a': 1 }}": "{{ has no }}",
    "{{ a === b }} {{ c }}": "nothing stands before =",
    "{{ a }} {{ a b }}": "nothing stands between a and b",
    "{{ }}": "it is unfinished",
    "{% if a": "{% has no %}",
    "a {# x": "{# has no #}",
    "{% raw %}{{": "{% raw %} has no {% endraw %}",
    "{% for a in b %}{{ a }}": "{% for %} has no {% endfor %}",
    "{% for a in b %}{% if a %}{% endfor %}": "{% endfor %} ends no for",
    "{% endif %}": "{% endif %} ends no if",
}
TAKEN = [
    "it's plain }} %}",
    "{#- {{ -#}{{- {'a': {'b': 1}} | tojson -}}",
    "{{ '}}' }}{% if a == '%}' %}1{% elif b %}2{% endif %}",
    "{% raw %}{{ x {% endraw %}",
    "nothing is left open {#",
    "{% for a in b %}{% break %}{% endfor %}{% set x %}a{% endset %}",
]
# `not` and words without blanks are left out: Jinja takes them for names where nobody would write one.
PARTS = [
    "a",
    "b.c",
    "1",
    "'x'",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "=",
    "==",
    "|",
    "~",
    "-",
    " is defined ",
    " in ",
]
PARTS += [" if ", " else ", " and ", "**", "&", '"', " ", " ", " ", "none"]
PIECES = [
    *PARTS,
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "if a",
    "endif",
    "for a in b",
    "endfor",
    "{% if a %}",
    "{% endif %}",
]


def jinja(text: str, *, expression: bool) -> bool:
    """Whether Jinja takes the text."""
    try:
        if not expression:
            ENV.parse(text)
            return True
        parser = Parser(ENV, text, state="variable")
        parser.parse_expression()
    except TemplateError:
        return False
    return parser.stream.eos


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions(text: str) -> None:
    assert jinjatext.slip(text, expression=True) == EXPRESSIONS[text]
    assert not jinja(text, expression=True)


@pytest.mark.parametrize("text", GOOD)
def test_good_expressions(text: str) -> None:
    assert jinjatext.slip(text, expression=True) is None
    assert jinja(text, expression=True)


@pytest.mark.parametrize("text", TEXTS)
def test_templates(text: str) -> None:
    assert jinjatext.slip(text) == TEXTS[text]
    assert not jinja(text, expression=False)


@pytest.mark.parametrize("text", TAKEN)
def test_good_templates(text: str) -> None:
    assert jinjatext.slip(text) is None
    assert jinja(text, expression=False)


@pytest.mark.parametrize("path", sorted(templates.FOLDER.glob("*.jinja")), ids=lambda path: path.stem)
def test_our_own_templates(path) -> None:
    assert jinjatext.slip(path.read_text()) is None


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join), st.lists(st.sampled_from(PIECES), max_size=8))
def test_nothing_is_said_against_what_jinja_takes(expression: str, pieces: list[str]) -> None:
    assert not jinja(expression, expression=True) or jinjatext.slip(expression, expression=True) is None
    text = " ".join(pieces)
    assert not jinja(text, expression=False) or jinjatext.slip(text) is None


def test_a_long_text_takes_no_time() -> None:
    assert jinjatext.slip("{{ '" + "a " * 200_000) == "{{ has no }}"
    assert jinjatext.slip("{{ a }}\n" * 20_000) is None
