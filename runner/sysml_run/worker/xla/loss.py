"""The loss of a batch in shapes that never change: what the plain trainer leaves out is computed and ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sysml_run.errors import StageError
from sysml_run.worker.batches import IGNORED


def answer_loss(model: Any, batch: Mapping[str, Any]) -> tuple[Any, Any]:
    """Negative log-likelihood of every label, (rows, length - 1) float32 with 0 where there is none, and the output.

    As `batches.answer_loss`, but for logits at every position: where labels begin is not known when XLA compiles.
    """
    import torch

    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if "attention_mask" not in inputs:
        inputs["attention_mask"] = packed_mask(model.config, inputs["position_ids"])
    output = model(**inputs, use_cache=False)
    kept, logits = batch["labels"][:, 1:], output.logits[:, :-1].float()
    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), kept.flatten(), reduction="none", ignore_index=IGNORED
    )
    return flat.view_as(kept), output


def packed_mask(config: Any, places: Any) -> Any:
    """What eager attention adds to the scores of packed rows, (rows, 1, length, length): no token looks across.

    `places` (rows, length) begin at 0 with every document. transformers finds the same from them, but first asks
    whether there is anything to find, and waits for the answer in every step.
    """
    import torch

    if len(set(getattr(config, "layer_types", None) or [])) > 1:
        hint = "write prompt: {packing: false}"
        raise StageError("packing: layers that attend differently are not built for XLA", hint)
    window = getattr(config, "sliding_window", None)
    order = torch.arange(places.shape[1], device=places.device)
    back = order[:, None] - order[None, :]
    document = (places == 0).cumsum(1)
    seen = (back >= 0) & (back < window) if window else back >= 0
    allowed = (document[:, :, None] == document[:, None, :]) & seen
    least = torch.finfo(torch.float32).min
    return torch.where(allowed, 0.0, least)[:, None]


def tokens(batch: Mapping[str, Any]) -> Any:
    """How many tokens of the batch are no padding, as a tensor; see `batches.tokens`."""
    if "attention_mask" in batch:
        return batch["attention_mask"].sum()
    places = batch["position_ids"]
    return places.numel() - ((places[:, :-1] == 0) & (places[:, 1:] == 0)).sum()
