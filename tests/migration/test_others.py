"""LLaMA-Factory, TRL and torchtune: where each means something of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sysml_run.errors import UsageError

from .conftest import Settle

FACTORY = "model_name_or_path: owner/model\nstage: sft\ndataset: mine\n"
TRL = "model_name_or_path: owner/model\ndataset_name: owner/rows\n"
PLATEAU = "lr_scheduler_type: reduce_lr_on_plateau\neval_strategy: steps\neval_steps: 5"
TUNE = "model: {_component_: torchtune.models.llama3.llama3_8b}\ncheckpointer: {checkpoint_dir: owner/model}\n"


def info(folder: Path, **found: object) -> None:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "dataset_info.json").write_text(json.dumps(found))


def test_factory_does_this_unasked(settle: Settle) -> None:
    made = settle("llama-factory", FACTORY)
    wanted = {"prompt.sequence_len": 2048, "training.num_epochs": 3, "training.micro_batch_size": 8}
    wanted |= {"optimizer.learning_rate": 5e-5, "optimizer.lr_scheduler": "linear", "optimizer.weight_decay": 0.0}
    wanted |= {"lora.r": 8, "lora.alpha": 16, "lora.target_modules": "all-linear", "hardware.precision": "fp32"}
    wanted |= {"training.gradient_checkpointing": True, "training.save_steps": 500, "prompt.train_on": "assistant"}
    assert wanted.items() <= made.values.items()


def test_factory_without_a_description_of_the_dataset(settle: Settle, tmp_path: Path) -> None:
    made = settle("llama-factory", FACTORY)
    assert made.values["datasets.0.path"] == "data/mine.json"
    assert any("mine is not described" in one for one in made.ledger.look)
    online = FACTORY.replace("mine", "owner/mine") + "dataset_dir: ONLINE"
    assert settle("llama-factory", online).values["datasets.0.path"] == "hub:owner/mine"
    info(tmp_path)
    (tmp_path / "data" / "dataset_info.json").write_text("[")
    assert settle("llama-factory", FACTORY).values["datasets.0.type"] == "alpaca"
    (tmp_path / "data" / "dataset_info.json").write_text("[]")
    assert settle("llama-factory", FACTORY).values["datasets.0.type"] == "alpaca"


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"file_name": "a.json"}, "alpaca"),
        (
            {"file_name": "a.json", "columns": {"prompt": "instruction", "query": "input", "response": "output"}},
            "alpaca",
        ),
        ({"file_name": "a.json", "columns": {"prompt": "q", "response": "a"}}, "rows"),
        ({"file_name": "a.json", "formatting": "sharegpt"}, "sharegpt"),
        ({"file_name": "a.json", "formatting": "openai"}, "messages"),
        ({"file_name": "a.json", "formatting": "sharegpt", "tags": {"role_tag": "who"}}, "messages"),
        ({"file_name": "a.json", "ranking": True}, "preference"),
    ],
)
def test_factory_types(found: dict[str, object], kind: str, settle: Settle, tmp_path: Path) -> None:
    info(tmp_path, mine=found)
    made = settle("llama-factory", FACTORY)
    assert made.values["datasets.0.type"] == kind
    assert made.values["datasets.0.path"] == "data/a.json"


def test_factory_columns_and_places(settle: Settle, tmp_path: Path) -> None:
    columns = {"prompt": "q", "query": "more", "response": "a", "system": "role", "history": "before"}
    info(
        tmp_path,
        mine={"script_url": "x", "columns": columns},
        two={"hf_hub_url": "a/b", "subset": "s", "num_samples": 7},
    )
    made = settle("llama-factory", FACTORY.replace("mine", "[mine, two]") + "max_samples: 5")
    assert made.values["datasets.0.map.prompt"] == "{{ q }}{% if more %}\n{{ more }}{% endif %}"
    assert made.values["datasets.0.map.system"] == "{{ role }}"
    assert any("earlier turns in before" in one for one in made.ledger.look)
    assert any("names neither a file" in one for one in made.ledger.look)
    assert (made.values["datasets.1.path"], made.values["datasets.1.config"]) == ("hub:a/b", "s")
    assert made.values["datasets.1.max_rows"] == 5


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("quantization_bit: 4", "quantization.load", "nf4"),
        ("quantization_bit: 8\nquantization_method: bnb", "quantization.load", "int8"),
        ("lora_rank: 4", "lora.alpha", 8),
        ("lora_target: q_proj, v_proj", "lora.target_modules", ["q_proj", "v_proj"]),
        ("train_on_prompt: true", "prompt.train_on", "all"),
        ("mask_history: true", "prompt.train_on", "completion"),
        ("stage: pt", "prompt.train_on", "all"),
        ("disable_gradient_checkpointing: true", "training.gradient_checkpointing", False),
        ("pure_bf16: true", "hardware.precision", "bf16"),
        ("flash_attn: disabled", "model.attn_implementation", "eager"),
        ("template: empty", "prompt.template", "none"),
        ("template: glm4", "prompt.template", "tokenizer"),
        ("tf32: true", "hardware.tf32", True),
        ("eval_steps: 5\nearly_stopping_steps: 2", "evaluation.early_stopping.patience", 2),
    ],
)
def test_factory_meanings(text: str, key: str, value: object, settle: Settle) -> None:
    base = FACTORY.replace("stage: sft\n", "") if "stage" in text else FACTORY
    assert settle("llama-factory", base + text).values[key] == value


def test_factory_without_lora(settle: Settle) -> None:
    made = settle("llama-factory", FACTORY + "finetuning_type: full\nlora_rank: 8\nquantization_bit: 3")
    assert made.listed["lora_rank"].startswith("has no effect in LLaMA-Factory")
    assert made.listed["quantization_bit"].startswith("no equal: quantization.load is nf4 or int8")
    made = settle("llama-factory", FACTORY + "finetuning_type: freeze")
    assert made.listed["finetuning_type"].startswith("no equal yet")
    assert any("finetuning_type freeze has no equal" in one for one in made.ledger.look)


def test_trl_does_this_unasked(settle: Settle) -> None:
    made = settle("trl", TRL + "use_peft: true")
    wanted = {"prompt.sequence_len": 1024, "prompt.truncation": "right", "prompt.train_on": "all", "lora.r": 16}
    wanted |= {"training.num_epochs": 3, "training.micro_batch_size": 8, "optimizer.learning_rate": 2e-5}
    wanted |= {"lora.dropout": 0.05, "lora.target_modules": ["q_proj", "v_proj"], "hardware.precision": "bf16"}
    assert wanted.items() <= made.values.items()


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("dataset_text_field: text", "datasets.0.type", "text"),
        ("completion_only_loss: true", "datasets.0.type", "prompt_completion"),
        ("completion_only_loss: false", "prompt.train_on", "all"),
        ("assistant_only_loss: true", "prompt.train_on", "assistant"),
        ("truncation_mode: keep_end", "prompt.truncation", "left"),
        ("dtype: float32", "model.dtype", "float32"),
        ("attn_implementation: sdpa", "model.attn_implementation", "sdpa"),
        ("use_cpu: true", "hardware.accelerator", "cpu"),
        ("load_in_8bit: true\nuse_peft: true", "quantization.load", "int8"),
        ("use_peft: true\nlora_target_modules: all-linear", "lora.target_modules", "all-linear"),
        ("use_peft: true\nlora_target_modules: q_proj", "lora.target_modules", ["q_proj"]),
        (
            "lr_scheduler_kwargs: {min_lr: 2e-6}\nlearning_rate: 2e-5\nlr_scheduler_type: cosine_with_min_lr",
            "optimizer.min_lr_ratio",
            0.1,
        ),
        (f"{PLATEAU}\nlr_scheduler_kwargs: {{factor: 0.3}}", "optimizer.plateau_factor", 0.3),
        (f"{PLATEAU}\nlr_scheduler_kwargs: {{patience: 4}}", "optimizer.plateau_patience", 4),
        (PLATEAU, "optimizer.plateau_factor", 0.1),
        (PLATEAU, "optimizer.plateau_patience", 10),
        ("report_to: tensorboard", "tracking", ["tensorboard"]),
        ("save_strategy: epoch", "training.num_epochs", 3),
        ("lr_scheduler_type: polynomial", "optimizer.lr_scheduler", "cosine"),
    ],
)
def test_trl_meanings(text: str, key: str, value: object, settle: Settle) -> None:
    assert settle("trl", TRL + text).values[key] == value


def test_trl_datasets(settle: Settle, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    made = settle(
        "trl",
        "model_name_or_path: a/b\ndataset_name: rows.jsonl\ndataset_train_split: train\n"
        "max_seq_length: 64\nmax_length: 32",
    )
    assert made.values["datasets.0.path"] == "rows.jsonl"
    assert made.listed["dataset_train_split"].startswith("a file is read whole")
    assert made.listed["max_seq_length"].startswith("max_length is written too")
    assert made.values["prompt.sequence_len"] == 32
    made = settle(
        "trl", "model_name_or_path: a/b\ndatasets: [{path: rows.jsonl}, {path: a/b, name: c}, x]\ndataset_name: a/b"
    )
    assert made.values["datasets.1.config"] == "c"
    assert made.listed["dataset_name"] == "datasets is written too, and wins"


def test_trl_a_template_in_a_file(settle: Settle, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}\n")
    assert settle("trl", TRL + "chat_template_path: chat.jinja").values["prompt.template"] == "{{ messages }}\n"
    assert "chat_template_path" in settle("trl", TRL + "chat_template_path: owner/model").listed


def test_trl_without_peft(settle: Settle) -> None:
    made = settle("trl", TRL + "use_peft: false\nlora_r: 8\nsave_strategy: epoch\nreport_to: none")
    assert made.listed["lora_r"].startswith("has no effect in trl")
    assert made.listed["use_peft"].startswith("a full fine-tune")
    assert made.listed["save_strategy"].startswith("the default here")
    assert made.listed["report_to"] == "none, as without tracking"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("clip_grad_norm: null", "training.max_grad_norm", 0),
        ("clip_grad_norm: 0.5", "training.max_grad_norm", 0.5),
        ("epochs: 3\nmax_steps_per_epoch: 10", "training.max_steps", 30),
        ("epochs: 3", "training.num_epochs", 3),
        ("optimizer: {_component_: torch.optim.AdamW, lr: 1e-5}", "optimizer.lr_scheduler", "constant"),
        ("optimizer: {_component_: torch.optim.Muon, lr: 1e-5}", "optimizer.name", "adamw"),
        ("device: cpu\ndtype: fp32", "hardware.accelerator", "cpu"),
        ("metric_logger: {_component_: a.TensorBoardLogger}", "tracking", ["tensorboard"]),
        ("dataset: {_component_: t.alpaca_dataset}", "prompt.train_on", "all"),
        (
            "dataset: {_component_: t.alpaca_dataset, column_map: {instruction: q, input: i, output: a}}",
            "datasets.0.map.completion",
            "{{ a }}",
        ),
        ("dataset: {_component_: t.alpaca_dataset, train_on_input: false, subset: s}", "prompt.train_on", "assistant"),
        (
            "dataset: {_component_: t.instruct_dataset, source: a/b, column_map: {input: q, output: a}}",
            "datasets.0.map.completion",
            "{{ a }}",
        ),
        ("dataset: {_component_: t.samsum_dataset}", "datasets.0.map.prompt", "{{ dialogue }}"),
        (
            "dataset: {_component_: t.chat_dataset, source: a/b, conversation_style: openai}",
            "datasets.0.type",
            "messages",
        ),
        (
            "dataset: {_component_: t.text_completion_dataset, source: text, data_files: a.txt, column: text}",
            "datasets.0.path",
            "a.txt",
        ),
        ("dataset: {_component_: t.preference_dataset, source: a/b}", "datasets.0.type", "preference"),
        ("dataset: {_component_: t.of_mine, source: a/b}", "datasets.0.type", "messages"),
    ],
)
def test_torchtune_meanings(text: str, key: str, value: object, settle: Settle) -> None:
    assert settle("torchtune", TUNE + text).values[key] == value


def test_torchtune_adapters(settle: Settle) -> None:
    text = (
        "model: {_component_: torchtune.models.x.lora_x, lora_attn_modules: [q_proj, output_proj], quantize_base: true}"
    )
    made = settle("torchtune", text)
    assert made.values["lora.target_modules"] == ["q_proj", "o_proj"]
    assert made.values["quantization.load"] == "nf4"
    made = settle("torchtune", "model: {_component_: torchtune.models.x.lora_x}")
    assert made.values["lora.target_modules"] == ["q_proj", "v_proj"]


def test_torchtune_fields_to_rename_and_arguments_of_classes(settle: Settle) -> None:
    text = "dataset: {_component_: t.text_completion_dataset, source: a/b, column: body, of_mine: 1}"
    made = settle("torchtune", TUNE + text)
    assert made.listed["dataset.column"].startswith("recipes read text from the field text")
    assert made.listed["dataset.of_mine"] == "no equal: an argument of t.text_completion_dataset"


def test_torchtune_values_that_name_others(settle: Settle) -> None:
    made = settle("torchtune", TUNE + 'output_dir: ${base}/run\nbase: out\nsave: ["${output_dir}", "${gone}"]')
    assert made.values["artifacts.dir"] == "out/run"
    assert made.ledger.leaves["save", 0] == "out/run"
    assert made.ledger.leaves["save", 1] == "${gone}"
    with pytest.raises(UsageError, match="means itself"):
        settle("torchtune", TUNE + "output_dir: ${output_dir}/run")


WORDS = "Write a response that appropriately completes the request.\n\n### Instruction:\nWhy?\n\n"
WITH = f"Below is an instruction that describes a task, paired with an input that provides further context. {WORDS}"
WITHOUT = f"Below is an instruction that describes a task. {WORDS}"


@pytest.mark.parametrize(
    ("columns", "kind", "row"),
    [
        ("", "alpaca", {"instruction": "Why?"}),
        (", column_map: {instruction: q, input: my field, output: a}", "rows", {"q": "Why?"}),
    ],
)
def test_torchtunes_alpaca_keeps_its_wording(columns: str, kind: str, row: dict[str, str], settle: Settle) -> None:
    made = settle("torchtune", TUNE + f"dataset: {{_component_: t.alpaca_cleaned_dataset{columns}}}")
    assert made.values["datasets.0.type"] == kind
    template = ImmutableSandboxedEnvironment().from_string(made.values["datasets.0.map.prompt"])
    assert template.render(row=row, **row) == f"{WITHOUT}### Response:\n"
    more = row | {"my field" if columns else "input": "Thus."}
    wanted = f"{WITH}### Input:\nThus.\n\n### Response:\n"
    assert template.render(row=more, **{k: v for k, v in more.items() if k.isidentifier()}) == wanted


@pytest.mark.parametrize(
    ("tool", "text", "key"),
    [
        ("llama-factory", FACTORY.replace("sft", "dpo"), "stage: dpo"),
        ("llama-factory", FACTORY.replace("sft", "kto"), "stage: kto"),
        ("trl", TRL + "beta: 0.1", "beta: 0.1"),
        ("trl", TRL + "loss_type: sigmoid", "loss_type: sigmoid"),
        ("trl", TRL + "num_generations: 8", "num_generations: 8"),
        ("trl", "model_name_or_path: a/b\nreward_funcs: [accuracy_reward]", "reward_funcs"),
        ("torchtune", TUNE + "loss: {_component_: torchtune.rlhf.loss.DPOLoss}", "loss._component_"),
        ("torchtune", TUNE + "dataset: {_component_: t.hh_rlhf_helpful_dataset}", "dataset._component_"),
        ("torchtune", TUNE + "reward_and_value_model: {_component_: a}", "reward_and_value_model"),
    ],
)
def test_preferences_are_said_first(tool: str, text: str, key: str, settle: Settle) -> None:
    made = settle(tool, text)
    assert made.values["datasets.0.type"] == "preference"
    assert made.ledger.look[0].startswith(f"datasets[].type: {tool} trains on preferences or rewards ({key}")
    assert not [why for why in made.listed.values() if why.startswith("unknown to")]


def test_preferences_in_described_datasets(settle: Settle, tmp_path: Path) -> None:
    info(tmp_path, mine={"file_name": "a.json"})
    assert settle("llama-factory", FACTORY.replace("sft", "ppo")).values["datasets.0.type"] == "preference"
    assert settle("llama-factory", FACTORY).values["datasets.0.type"] == "alpaca"


@pytest.mark.parametrize("loss", ["nll", "dft"])
def test_losses_of_supervised_training_are_no_preferences(loss: str, settle: Settle) -> None:
    made = settle("trl", TRL + f"loss_type: {loss}")
    assert made.values["datasets.0.type"] == "messages"
    assert not [one for one in made.ledger.look if "preferences" in one]


@pytest.mark.parametrize(
    ("tool", "text", "name"),
    [
        ("llama-factory", FACTORY + "adapter_name_or_path: ./adapter", "adapter_name_or_path"),
        ("llama-factory", FACTORY + "use_galore: true", "use_galore"),
        ("llama-factory", FACTORY + "eval_dataset: other", "eval_dataset"),
        ("llama-factory", FACTORY + "mix_strategy: interleave_under\ninterleave_probs: 0.1,0.9", "interleave_probs"),
        ("llama-factory", FACTORY + "label_smoothing_factor: 0.1", "label_smoothing_factor"),
        ("trl", TRL + "eos_token: <end>", "eos_token"),
        ("trl", "model_name_or_path: a/b\ndatasets: [{path: a/b, fraction: 0.5}]", "datasets.fraction"),
        ("torchtune", TUNE + "lr_scheduler: {_component_: a.get_exponential}", "lr_scheduler._component_"),
        ("torchtune", TUNE + "datasets: [{source: a/b, split: train}]", "datasets"),
    ],
)
def test_changes_of_the_learning_are_said(tool: str, text: str, name: str, settle: Settle) -> None:
    look = settle(tool, text).ledger.look
    assert len([one for one in look if one.startswith(f"{name}: changes what is learnt")]) == 1


def test_parts_of_splits_are_said(settle: Settle, tmp_path: Path) -> None:
    part = "'train[:10%]'"
    info(tmp_path, mine={"hf_hub_url": "a/b", "split": "train[:10%]"})
    for tool, text in (
        ("trl", TRL + f"dataset_train_split: {part}"),
        ("trl", f"model_name_or_path: a/b\ndatasets: [{{path: a/b, split: {part}}}]"),
        ("torchtune", TUNE + f"dataset: {{_component_: t.alpaca_dataset, split: {part}}}"),
        ("llama-factory", FACTORY),
    ):
        made = settle(tool, text)
        assert made.values["datasets.0.split"] == "train"
        assert any(one.startswith(f"datasets.0.split: {tool} reads train[:10%]") for one in made.ledger.look)
    made = settle("torchtune", TUNE + "dataset: {_component_: t.alpaca_dataset, split: '[:10%]'}")
    assert "datasets.0.split" not in made.values


@pytest.mark.parametrize(
    ("expression", "wanted", "said"),
    [
        (r".*\.(q_proj|v_proj)$", ["q_proj", "v_proj"], ""),
        (r"model\.layers\.\d+\.mlp\.(up|down)_proj", ["up_proj", "down_proj"], "wherever they are"),
        (r".*(?<!x)_proj", "attention", "attention is a guess"),
        ("q_proj, v_proj", ["q_proj", "v_proj"], ""),
    ],
)
def test_layers_by_an_expression(expression: str, wanted: object, said: str, settle: Settle) -> None:
    for tool, text in (
        ("axolotl", "base_model: a/b\nlearning_rate: 1e-4\nadapter: lora\n"),
        ("trl", TRL + "use_peft: true\n"),
        ("llama-factory", FACTORY),
    ):
        made = settle(
            tool, f"{text}{'lora_target' if tool == 'llama-factory' else 'lora_target_modules'}: '{expression}'"
        )
        assert made.values["lora.target_modules"] == wanted
        look = [one for one in made.ledger.look if one.startswith("lora.target_modules: ")]
        assert len(look) == bool(said)
        assert not said or said in look[0]


def test_torchtune_masks(settle: Settle) -> None:
    text = TUNE + "dataset: {_component_: t.chat_dataset, masking_strategy: %s}"
    assert settle("torchtune", text % "train_on_last").values["prompt.train_on"] == "completion"
    assert settle("torchtune", text % "train_on_all").values["prompt.train_on"] == "all"
