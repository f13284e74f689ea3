"""Write a GGUF file from a folder of safetensors, one tensor in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sysml_run.errors import StageError
from sysml_run.exports import GGUF_MODELS
from sysml_run.rundir import read_json
from sysml_run.worker import weights

from . import layout, types, words
from .layout import Part
from .words import Words

FILE_TYPE = {  # gguf.LlamaFileType
    "F32": "ALL_F32",
    **{kind: f"MOSTLY_{kind}" for kind in ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")},
}
WEIGHED = ("Q5_0", "Q5_1")  # of the others, those in which llama.cpp heeds an importance matrix
NATIVE = ("Q4_K", "Q5_K", "Q6_K")  # types that the gguf package only reads; libgguf computes them as llama.cpp does


class Source:
    """The weights of a folder by name."""

    def __init__(self, folder: Path) -> None:
        self.where = {name: file.path for file in weights.read(folder) for name in file.sizes}

    def shape(self, part: Part) -> tuple[int, ...]:
        """Of the tensor that the part becomes."""
        from safetensors import safe_open

        first = part.sources[0]
        with safe_open(self.where[first], framework="pt") as file:
            shape = tuple(file.get_slice(first).get_shape())
        return (len(part.sources), *shape) if "_exps" in part.name else shape

    def values(self, part: Part) -> Any:
        """float32, with the rows of heads where llama.cpp looks for them."""
        import numpy as np
        from safetensors import safe_open

        found = []
        for name in part.sources:
            with safe_open(self.where[name], framework="pt") as file:
                found.append(file.get_tensor(name).float().numpy())
        whole = np.stack(found) if "_exps" in part.name else found[0]
        return turned(whole, part.heads) if part.heads else whole


def convert(
    folder: Path,
    target: Path,
    kind: str,
    told: Words,
    about: Mapping[str, str],
    means: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `target`; gives the number of tensors of each type. Raises StageError for what cannot be converted.

    `about` are texts for the header: `name`, `license`, …; `means` are those of `importance.collect`.
    """
    import gguf

    config = read_json(folder / "config.json")
    if config.get("model_type") not in GGUF_MODELS:
        raise StageError(f"{config.get('model_type')} models are not converted to GGUF", f"known: {known()}")
    source = Source(folder)
    parts = layout.parts(source.where, config)
    writer = gguf.GGUFWriter(target, GGUF_MODELS[config["model_type"]])
    for key, text in about.items():
        writer.add_string(f"general.{key}", text)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPE[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    layout.header(writer, config)
    words.write(writer, told)
    model = layout.model(config, [part.name for part in parts])
    chosen = {part.name: types.tensor_type(kind, part.name, source.shape(part), model) for part in parts}
    put(writer, source, parts, chosen, layout.rope_factors(config), means or {})
    return {"tensors": dict(Counter(chosen.values())), "notes": list(notes(kind, parts, chosen, source, model, config))}


def put(
    writer: Any, source: Source, parts: list[Part], chosen: Mapping[str, str], factors: Any, means: Mapping[str, Any]
) -> None:
    """Names, shapes and types of all tensors, then one tensor after the other."""
    import gguf
    import numpy as np

    turning = None if factors is None else np.array(factors, dtype=np.float32)
    if turning is not None:
        writer.add_tensor_info("rope_freqs.weight", turning.shape, turning.dtype, turning.nbytes)
    for part in parts:
        held, shape = gguf.GGMLQuantizationType[chosen[part.name]], source.shape(part)
        size = int(np.prod(gguf.quant_shape_to_byte_shape(shape, held), dtype=np.int64))
        writer.add_tensor_info(part.name, shape, np.dtype(np.float32), size, raw_dtype=held)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if turning is not None:
            writer.write_tensor_data(turning)
        for part in parts:
            writer.write_tensor_data(encoded(source.values(part), chosen[part.name], means.get(part.name)))
    finally:
        writer.close()


def encoded(values: Any, kind: str, means: Any = None) -> Any:
    """The numbers as the file holds them; rows stay whole.

    `means` (columns), or (experts, columns) for stacked matrices, say which numbers of a row are to be kept best.
    """
    import gguf
    import numpy as np

    if kind not in NATIVE and (means is None or kind not in WEIGHED):
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    import libgguf

    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, values.shape[-1])
    many = [None] if means is None else means.reshape(-1, values.shape[-1])
    stacked = np.split(rows, len(many))
    made = [
        libgguf.quantize_rows(each, libgguf.GGMLQuantizationType[kind], mean)
        for each, mean in zip(stacked, many, strict=True)
    ]
    return np.concatenate(made).reshape(*values.shape[:-1], -1)


def turned(values: Any, heads: int) -> Any:
    """Rows of each head from two halves to neighbouring pairs; weights (rows, columns) or biases (rows)."""
    rest = values.shape[1:]
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *rest).swapaxes(1, 2).reshape(values.shape)


def notes(kind: str, parts: list[Part], chosen: Mapping[str, str], source: Source, model: Any, config: Any) -> Any:
    """What is not as the type's name says, and what llama.cpp does not do as the model was trained, in sentences."""
    swapped: Counter[tuple[int, str, str]] = Counter()
    for part in parts:
        shape = source.shape(part)
        if len(shape) > 1 and kind not in types.PLAIN and not part.name.endswith("ffn_gate_inp.weight"):
            wanted = types.wanted(kind, part.name, shape[-1], model)
            swapped[shape[-1], wanted, chosen[part.name]] += wanted != chosen[part.name]
    for (width, wanted, held), count in swapped.items():
        if count:
            yield f"{count} tensors with rows of {width} are in {held}: {wanted} takes rows of a multiple of 256"
    window = config.get("sliding_window")
    if window and config.get("use_sliding_window", True) and window < config["max_position_embeddings"]:
        yield f"the model looks back {window} tokens, llama.cpp at all of them: longer texts are answered differently"


def known() -> str:
    return ", ".join(GGUF_MODELS)
