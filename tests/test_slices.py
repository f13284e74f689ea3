"""TPU slices by name: what each is made of."""

from __future__ import annotations

import pytest

from sysml_run import document, slices, validate
from sysml_run.errors import UsageError

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "devices", "memory"),
    [
        ("v2-8", 4, 1, 8, 8),
        ("v3-8", 4, 1, 8, 16),
        ("v3-32", 16, 4, 32, 16),
        ("v4-8", 4, 1, 4, 32),
        ("v4-32", 16, 4, 16, 32),
        ("v4-384", 192, 48, 192, 32),
        ("v5e-1", 1, 1, 1, 16),
        ("v5e-8", 8, 1, 8, 16),
        ("v5e-64", 64, 16, 64, 16),
        ("v5litepod-64", 64, 16, 64, 16),
        ("v5p-8", 4, 1, 4, 95),
        ("v6e-8", 8, 1, 8, 32),
        ("v6e-256", 256, 64, 256, 32),
        ("tpu7x-8", 4, 1, 8, 96),
    ],
)
def test_a_slice(name: str, chips: int, hosts: int, devices: int, memory: int) -> None:
    found = slices.find(name)
    assert (found.chips, found.hosts, found.devices, found.memory) == (chips, hosts, devices, memory * GIB)
    assert found.name == name


def test_peaks_are_those_of_a_chip() -> None:
    for kind, generation in slices.GENERATIONS.items():
        found = slices.find(slices.names(kind)[-1 if kind == "v6e" else 0])
        assert found.peak * found.devices == pytest.approx(generation.peak * found.chips)


@pytest.mark.parametrize("name", ["v2-16", "v3-9", "v4-10", "v5e-2", "v6e-512", "tpu7x-4"])
def test_a_size_that_there_is_not(name: str) -> None:
    with pytest.raises(UsageError, match=f"there is no slice {name}") as error:
        slices.find(name)
    assert f"{name.partition('-')[0]}-" in str(error.value.hint)


@pytest.mark.parametrize("digits", [6, 5000])
def test_a_number_that_no_slice_has_is_a_problem_of_the_recipe(digits: int) -> None:
    text = f"version: 1\nhardware: {{accelerator: tpu, topology: v4-{'9' * digits}}}\n"
    found = validate.check(document.parse(text, "r.yaml"))
    assert "hardware.topology" in {problem.pointer for problem in found}


@pytest.mark.parametrize("kind", slices.GENERATIONS)
def test_the_names_that_are_offered_are_found(kind: str) -> None:
    names = [name for name in slices.names(kind) if name != "\u2026"]
    assert len(names) >= 5
    assert all(slices.find(name).generation == kind for name in names)
