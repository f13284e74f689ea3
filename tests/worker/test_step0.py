"""What is not as the recipe says is noticed on the built trainer, before the first step."""

from collections.abc import Callable
from typing import Any

import pytest

from sysml_run import document, resolve
from sysml_run.errors import StageError
from sysml_run.rundir import RunDir
from sysml_run.worker import prepare, step0, train

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
name: tiny
model: {base_model: "tiny:llama", dtype: float32}
datasets: [{path: rows.jsonl, type: prompt_completion}]
lora: {r: 4, target_modules: all-linear}
optimizer: {name: adamw, learning_rate: 1e-2, lr_scheduler: cosine, warmup_ratio: 0.2, min_lr_ratio: 0.1}
training: {max_steps: 8, gradient_accumulation_steps: 1}
hardware: {accelerator: cpu, precision: fp32, threads: 1}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], tuple[Any, Any]]:
    folder = tmp_path_factory.mktemp("step0")
    (folder / "rows.jsonl").write_text(
        "".join(f'{{"prompt": "is {at} odd?", "completion": "{at % 2}"}}\n' for at in range(40))
    )
    recipe = resolve.resolve(document.parse(RECIPE, str(folder / "tiny.yaml"))).recipe
    rundir = RunDir(folder / "run")
    rundir.path.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        prepare.run(recipe, rundir)

        def build() -> tuple[Any, Any]:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            trainer, _, _ = train.build(recipe, rundir)
            trainer.create_optimizer_and_scheduler(8)
            trainer.state.max_steps = 8
            return recipe, trainer

        yield build


def test_as_built_it_passes_and_is_recorded(built: Callable[[], tuple[Any, Any]]) -> None:
    facts = step0.check(*built())
    assert facts["lora_modules"] == 14
    assert facts["decayed_parameters"] == facts["optimizer_parameters"] == facts["trainable_parameters"]
    assert 0 < facts["loss_share"] < 0.5
    assert (facts["first_learning_rate"], facts["peak_learning_rate"]) == (0.0, 1e-2)
    assert facts["end_learning_rate"] == pytest.approx(1e-3)
    assert len(facts["template_sha256"]) == 64


def decay(trainer: Any) -> None:
    for group in trainer.optimizer.param_groups:
        group["weight_decay"] = 0.9


def betas(trainer: Any) -> None:
    trainer.optimizer.param_groups[0]["betas"] = (0.1, 0.2)


def epsilon(trainer: Any) -> None:
    trainer.optimizer.param_groups[0]["eps"] = 1.0


def schedule(trainer: Any) -> None:
    from transformers import get_constant_schedule

    trainer.lr_scheduler = get_constant_schedule(trainer.optimizer)


def floor(trainer: Any) -> None:
    from transformers import get_cosine_schedule_with_warmup

    trainer.lr_scheduler = get_cosine_schedule_with_warmup(trainer.optimizer, 2, 8)


def labels(trainer: Any) -> None:
    trainer.train_dataset = [{**row, "labels": [-100] * len(row["labels"])} for row in trainer.train_dataset]


def clipping(trainer: Any) -> None:
    trainer.args.max_grad_norm = 99


def frozen(trainer: Any) -> None:
    for name, parameter in trainer.model.named_parameters():
        if "lora_" in name and "layers.1" in name:
            parameter.requires_grad = False
    trainer.optimizer = None
    trainer.create_optimizer()


def bare_layer(trainer: Any) -> None:
    attention = trainer.model.base_model.model.model.layers[0].self_attn
    attention.q_proj = attention.q_proj.base_layer
    trainer.optimizer = None
    trainer.create_optimizer()


def other_class(trainer: Any) -> None:
    import torch

    trainer.optimizer = torch.optim.SGD([each for each in trainer.model.parameters() if each.requires_grad], lr=1e-2)


def built_before_the_adapters(trainer: Any) -> None:
    """An optimizer of the right class and numbers over the base's weights alone, which nothing trains."""
    frozen = [each for name, each in trainer.model.named_parameters() if "lora_" not in name]
    for group, kept in zip(trainer.optimizer.param_groups, (frozen, []), strict=False):
        group["params"] = kept


def one_adapter_left_out(trainer: Any) -> None:
    trainer.optimizer.param_groups[0]["params"].pop()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (decay, "weight decay"),
        (betas, "betas"),
        (epsilon, "epsilon"),
        (schedule, "first learning rate"),
        (floor, "end of the schedule"),
        (labels, "no token that counts"),
        (clipping, "gradient clipping"),
        (frozen, "is not trained"),
        (bare_layer, "without an adapter"),
        (other_class, "optimizer is torch.optim.sgd.SGD"),
        (built_before_the_adapters, "does not hold exactly the trainable parameters"),
        (one_adapter_left_out, "does not hold exactly the trainable parameters"),
    ],
)
def test_a_difference_stops_the_run(
    built: Callable[[], tuple[Any, Any]], change: Callable[[Any], None], words: str
) -> None:
    recipe, trainer = built()
    change(trainer)
    with pytest.raises(StageError, match=words):
        step0.check(recipe, trainer)
