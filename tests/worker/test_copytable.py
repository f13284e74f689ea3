"""Quantized copies beside the weights they were made from."""

from typing import Any

from sysml_run.worker import copytable

METRICS = {"json_valid": 1.0, "severity.accuracy": 0.75, "severity.majority": 0.5}


def figures(**more: Any) -> dict[str, Any]:
    facts = {"reader": "transformers 5.23.0", "perplexity": 1.25, "bytes": 270_000_000, "bits_per_weight": 16.02}
    return facts | {"load_seconds": 1.24, "tokens_per_second": 21.06, "metrics": METRICS} | more


def test_a_column_for_each_copy() -> None:
    small = figures(
        reader="llama-cpp-python 0.2.90",
        perplexity=1.2625,
        bytes=105_400_000,
        bits_per_weight=6.25,
        metrics=METRICS | {"severity.accuracy": 0.7},
        perplexity_increase=0.01,
        top_token_agreement=0.985,
        unquantized=figures(),
    )
    found = copytable.table({"quantized": {"gguf-Q4_K_M": small}})
    assert found is not None
    assert found.names == ["unquantized", "gguf-Q4_K_M"]
    assert dict(found.rows) == {
        "Size": ["270.0 MB", "105.4 MB"],
        "Bits of a weight": ["16.02", "6.25"],
        "Perplexity": ["1.25", "1.262"],
        "Higher by": ["–", "+1.00 %"],  # noqa: RUF001
        "Likeliest token the same": ["–", "98.5 %"],  # noqa: RUF001
        "Valid JSON": ["100.0 %", "100.0 %"],
        "Severity accuracy": ["75.0 %", "70.0 %"],
        "Loads in": ["1.2 s", "1.2 s"],
        "Tokens made a second": ["21.1", "21.1"],
        "Read by": ["transformers 5.23.0", "llama-cpp-python 0.2.90"],
    }


def test_none_where_nothing_was_measured() -> None:
    assert copytable.table({"rows": 3}) is None
