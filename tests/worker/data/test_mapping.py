"""Templates over a row: strict, sandboxed, JSON as it should be."""

from typing import Any

import pytest

from sysml_run.errors import DataError
from sysml_run.worker.data.mapping import NullFieldError, Template, pick, whole


def render(text: str, **fields: Any) -> Any:
    return Template(text, "datasets.0.map.prompt")(fields, "a.json:0")


def holds(text: str, **fields: Any) -> Any:
    return Template(text, "datasets.0.where", expression=True)(fields, "a.json:0")


def test_tojson_is_compact_keeps_order_and_escapes_nothing_for_html() -> None:
    value = {"b": "é <a> & 'x'", "a": [1, 2.0, None, True]}
    assert render("{{ v | tojson }}", v=value) == '{"b":"é <a> & \'x\'","a":[1,2.0,null,true]}'
    assert render("{{ v | tojson(indent=1) }}", v={"a": 1}) == '{\n "a": 1\n}'


def test_text_stays_as_written() -> None:
    assert render("  {{ a }}\n", a="<b>\n") == "  <b>\n\n"


def test_mixed_types_render_as_they_are() -> None:
    rows: list[Any] = [{"pid": 1046}, {"pid": "1046"}, {"pid": None}, {"pid": [True]}]
    texts = ['{"pid":1046}', '{"pid":"1046"}', '{"pid":null}', '{"pid":[true]}']
    assert [render("{{ m | tojson }}", m=row) for row in rows] == texts


@pytest.mark.parametrize(
    "text", ["{{ sevrity }}", "{{ {'s': sevrity} | tojson }}", "{{ sevrity | tojson }}", "{{ cycler }}"]
)
def test_a_missing_field_lists_those_found(text: str) -> None:
    with pytest.raises(DataError, match=r"datasets\.0\.map\.prompt.*is undefined.*row a\.json:0") as caught:
        render(text, severity="low", title="t")
    assert caught.value.hint == "fields found: severity, title"


def test_a_missing_inner_field() -> None:
    with pytest.raises(DataError, match="'dict object' has no attribute 'pid'"):
        render("{{ metadata.pid }}", metadata={})


def test_null_drops_the_row_unless_it_is_json() -> None:
    with pytest.raises(NullFieldError):
        render("{{ rationale }}", rationale=None)
    assert render("{{ rationale | tojson }}{{ rationale or '' }}", rationale=None) == "null"


def test_fields_named_like_methods() -> None:
    assert render("{{ m.items }} {{ m.keys | tojson }}", m={"items": "a", "keys": [1]}) == "a [1]"


def test_where_is_an_expression() -> None:
    assert holds("category != 'mac' and metadata.pid > 3", category="dns", metadata={"pid": 4})
    assert not holds("x is defined", y=1)
    with pytest.raises(DataError, match="'x' is undefined"):
        holds("x == 1", y=1)
    with pytest.raises(DataError, match="'x' is undefined"):
        holds("x", y=1)


@pytest.mark.parametrize("text", ["{{ ''.__class__.__mro__ }}", "{{ m.clear() }}{{ ''.format.__globals__ }}"])
def test_the_sandbox(text: str) -> None:
    with pytest.raises(DataError):
        render(text, m={})


def test_mistakes_name_their_template() -> None:
    with pytest.raises(DataError, match=r"datasets\.0\.map\.prompt: "):
        render("{{ a ")
    with pytest.raises(DataError, match=r"TypeError.*row a\.json:0"):
        render("{{ a + 1 }}", a="x")


@pytest.mark.parametrize(("value", "found"), [(95.0, 95), ("95", 95), (0.5, 0.5), ("high", "high"), (None, None)])
def test_whole(value: Any, found: Any) -> None:
    assert repr(whole(value)) == repr(found)


def test_pick_walks_a_dotted_path() -> None:
    assert pick({"m": {"host": "a"}}, "m.host", "split.group_by", "x:0") == "a"
    with pytest.raises(DataError, match=r"split\.group_by: no field 'm\.user'") as caught:
        pick({"m": {"host": "a"}}, "m.user", "split.group_by", "x:0")
    assert caught.value.hint == "fields found: host"


def test_mentions_finds_whole_words_in_any_case() -> None:
    assert holds("t | mentions('exploit', 'lateral movement')", t="Known EXPLOIT.")
    assert holds("t | mentions('exploit', 'lateral movement')", t="by Lateral movement")
    assert not holds("t | mentions('exploit', 'cve')", t="exploited, cve_1")
    assert holds("(a ~ ' ' ~ b) | mentions('c++')", a="in", b="c++")
    assert holds("row | mentions('cve')", row={"m": {"refs": ["CVE 1"]}})
    assert not holds("t | mentions('none')", t=None)


@pytest.mark.parametrize("words", ["", "''", "3"])
def test_mentions_wants_words(words: str) -> None:
    with pytest.raises(DataError, match="mentions wants words"):
        holds(f"t | mentions({words})", t="x")


def test_mentions_of_a_missing_field() -> None:
    with pytest.raises(DataError, match="'t' is undefined"):
        holds("t | mentions('x')", u=1)
