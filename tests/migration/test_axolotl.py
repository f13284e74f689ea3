"""axolotl's keys: the sixty most used ones by one, and the meanings that need care."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Settle

BASE = "base_model: owner/model\nlearning_rate: 1e-4\ndatasets: [{path: owner/rows, type: alpaca}]\n"
CHAT = BASE.replace("alpaca", "chat_template")
LORA = BASE + "adapter: lora\nlora_r: 8\nlora_alpha: 16\n"
# For each of the sixty most used keys: a configuration that has it, and where it is carried to or why it is not.
MOST_USED = {
    "base_model": ("", "model.base_model"),
    "output_dir": ("output_dir: out", "artifacts.dir"),
    "sequence_len": ("sequence_len: 4096", "prompt.sequence_len"),
    "micro_batch_size": ("micro_batch_size: 2", "training.micro_batch_size"),
    "learning_rate": ("", "optimizer.learning_rate"),
    "optimizer": ("optimizer: adamw_bnb_8bit", "optimizer.name"),
    "bf16": ("bf16: auto", "hardware.precision"),
    "datasets.0.path": ("", "datasets.0.path"),
    "gradient_accumulation_steps": ("gradient_accumulation_steps: 4", "training.gradient_accumulation_steps"),
    "lr_scheduler": ("lr_scheduler: cosine", "optimizer.lr_scheduler"),
    "logging_steps": ("logging_steps: 1", "training.logging_steps"),
    "num_epochs": ("num_epochs: 4", "training.num_epochs"),
    "tf32": ("tf32: false", "hardware.tf32"),
    "sample_packing": ("sample_packing: true", "prompt.packing"),
    "warmup_ratio": ("warmup_ratio: 0.1", "optimizer.warmup_ratio"),
    "saves_per_epoch": ("saves_per_epoch: 2", "why: no equal: an interval is written in steps"),
    "val_set_size": ("val_set_size: 0.05", "split.validation"),
    "attn_implementation": ("attn_implementation: flash_attention_2", "model.attn_implementation"),
    "gradient_checkpointing": ("gradient_checkpointing: true", "training.gradient_checkpointing"),
    "weight_decay": ("weight_decay: 0.1", "optimizer.weight_decay"),
    "wandb_name": ("wandb_name: one", "why: wandb reads it"),
    "wandb_project": ("wandb_project: one", "tracking"),
    "wandb_entity": ("wandb_entity: one", "why: wandb reads it"),
    "wandb_watch": ("wandb_watch: gradients", "why: no equal: gradients are not sent"),
    "wandb_log_model": ("wandb_log_model: checkpoint", "why: the package is kept in the run directory"),
    "evals_per_epoch": ("evals_per_epoch: 4", "why: no equal: an interval is written in steps"),
    "adapter": ("", "lora"),
    "lora_r": ("", "lora.r"),
    "lora_alpha": ("", "lora.alpha"),
    "dataset_prepared_path": ("dataset_prepared_path: last", "why: prepared rows are kept in sysml-run's own cache"),
    "lora_dropout": ("lora_dropout: 0.05", "lora.dropout"),
    "special_tokens.pad_token": ("special_tokens: {pad_token: x}", "why: the tokenizer's own special tokens"),
    "resume_from_checkpoint": ("resume_from_checkpoint: x", "why: going on is asked on the command line"),
    "load_in_4bit": ("load_in_4bit: true", "quantization.load"),
    "load_in_8bit": ("load_in_8bit: true", "quantization.load"),
    "lora_model_dir": ("lora_model_dir: x", "why: no equal: a run starts from the base model"),
    "lora_target_modules.0": ("lora_target_modules: [q_proj]", "lora.target_modules"),
    "plugins.0": ("plugins: [a.b]", "why: no equal: sysml-run has no plugins"),
    "lora_target_linear": ("lora_target_linear: true", "lora.target_modules"),
    "model_type": ("model_type: x", "why: transformers finds the class"),
    "chat_template": ("chat_template: chatml", "why: without effect in axolotl: type alpaca has its own wording"),
    "tokenizer_type": ("tokenizer_type: x", "why: transformers finds the class"),
    "gradient_checkpointing_kwargs.use_reentrant": (
        "gradient_checkpointing_kwargs: {use_reentrant: true}",
        "why: derived",
    ),
    "fsdp_config.offload_params": ("fsdp_config: {offload_params: true}", "hardware.offload.parameters"),
    "eval_sample_packing": ("eval_sample_packing: true", "why: evaluation never packs"),
    "strict": ("strict: true", "why: a recipe is always strict"),
    "pad_to_sequence_len": ("pad_to_sequence_len: true", "prompt.padding"),
    "trust_remote_code": ("trust_remote_code: true", "model.trust_remote_code"),
    "fp16": ("bf16: false\nfp16: true", "hardware.precision"),
    "liger_rms_norm": ("liger_rms_norm: true", "why: no equal yet: it changes speed and memory"),
    "liger_glu_activation": ("liger_glu_activation: true", "why: no equal yet: it changes speed and memory"),
    "remove_unused_columns": ("remove_unused_columns: true", "why: a row's fields are named by datasets[].map"),
    "eot_tokens.0": ("eot_tokens: [x]", "why: where an answer ends is found by rendering"),
    "liger_layer_norm": ("liger_layer_norm: true", "why: no equal yet: it changes speed and memory"),
    "processor_type": ("processor_type: x", "why: no equal: recipes are for text"),
    "skip_prepare_dataset": ("skip_prepare_dataset: true", "why: prepared rows are kept in sysml-run's own cache"),
    "fsdp.0": ("fsdp: [full_shard]", "hardware.zero_stage"),
    "max_steps": ("max_steps: 100", "training.max_steps"),
    "liger_rope": ("liger_rope: true", "why: no equal yet: it changes speed and memory"),
    "lora_mlp_kernel": ("lora_mlp_kernel: true", "why: no equal yet: it changes speed and memory"),
}


@pytest.mark.parametrize("key", MOST_USED)
def test_the_sixty_most_used_keys(key: str, settle: Settle) -> None:
    text, wanted = MOST_USED[key]
    made = settle("axolotl", LORA + text)
    if wanted.startswith("why: "):
        assert made.listed[key].startswith(wanted.removeprefix("why: "))
    else:
        assert made.carried[key] == wanted


def test_there_are_sixty() -> None:
    assert len(MOST_USED) == 60


def test_an_empty_adapter_is_a_full_fine_tune(settle: Settle) -> None:
    made = settle("axolotl", BASE + "adapter:\nlora_r: 8\nlora_target_linear: true")
    assert not [name for name in made.values if name.startswith("lora")]
    assert made.listed["adapter"] == "empty: a full fine-tune, which is a recipe without the section lora"
    assert made.listed["lora_r"].startswith("has no effect in axolotl without adapter")


def test_another_adapter_has_no_equal(settle: Settle) -> None:
    made = settle("axolotl", BASE + "adapter: llama-adapter")
    assert made.listed["adapter"].startswith("recipes have LoRA or a full fine-tune")


def test_an_adapter_without_numbers_has_pefts(settle: Settle) -> None:
    made = settle("axolotl", BASE + "adapter: lora")
    assert (made.values["lora.r"], made.values["lora.alpha"]) == (8, 8)
    assert made.values["lora.target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lora_target_linear: true\nlora_target_modules: [q_proj]", "all-linear"),
        ("lora_target_modules: all-linear", "all-linear"),
        ("lora_target_linear: false\nlora_target_modules: [q_proj, v_proj]", ["q_proj", "v_proj"]),
    ],
)
def test_targets(text: str, wanted: object, settle: Settle) -> None:
    assert settle("axolotl", LORA + text).values["lora.target_modules"] == wanted


def test_qlora_is_four_bits_even_unsaid(settle: Settle) -> None:
    assert settle("axolotl", BASE + "adapter: qlora").values["quantization.load"] == "nf4"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bf16: auto", "bf16"),
        ("bf16: yes", "bf16"),
        ("bfloat16: true", "bf16"),
        ("bf16: false\nfp16: true", "fp16"),
        ("bf16: false\nfp16:", "fp32"),
        ("", "bf16"),
    ],
)
def test_precision(text: str, wanted: str, settle: Settle) -> None:
    made = settle("axolotl", BASE + text)
    assert made.values["hardware.precision"] == wanted
    assert made.values["model.dtype"] == {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[wanted]


def test_what_axolotl_does_unasked_is_written(settle: Settle) -> None:
    made = settle("axolotl", BASE)
    wanted = {"prompt.sequence_len": 512, "prompt.truncation": "drop", "optimizer.weight_decay": 0.0}
    wanted |= {"optimizer.warmup_ratio": 0.03, "training.num_epochs": 1, "prompt.train_on": "completion"}
    wanted |= {"optimizer.name": "adamw", "hardware.zero_stage": None, "split.validation": 0.05}
    assert wanted.items() <= made.values.items()
    assert "hold" in made.origins["split.validation"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("val_set_size: 0.05", 0.05),
        ("val_set_size: 5.5", 5),
        ("val_set_size: 200", 200),
        ("val_set_size: 0", 0.05),
        ("test_datasets: [{path: t.jsonl, type: alpaca}]\nval_set_size: 0", 0),
    ],
)
def test_held_out_rows(text: str, wanted: float, settle: Settle) -> None:
    assert settle("axolotl", BASE + text).values["split.validation"] == wanted


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("tokenizer_default", "tokenizer"),
        ("tokenizer_default_fallback_chatml", "tokenizer"),
        ("chatml", "chatml"),
        ("llama3", "llama3"),
        ("mistral_v1", "mistral"),
        ("qwen_25", "tokenizer"),
    ],
)
def test_chat_templates(name: str, ours: str, settle: Settle) -> None:
    assert settle("axolotl", CHAT + f"chat_template: {name}").values["prompt.template"] == ours


def test_a_template_written_out_and_one_in_a_file(settle: Settle, tmp_path: Path) -> None:
    text = 'chat_template: jinja\nchat_template_jinja: "{{ messages }}"'
    assert settle("axolotl", CHAT + text).values["prompt.template"] == "{{ messages }}"
    (tmp_path / "one.jinja").write_text("{{ of_a_file }}")
    assert settle("axolotl", CHAT + "chat_template_jinja: one.jinja").values["prompt.template"] == "{{ of_a_file }}"
    gone = settle("axolotl", CHAT + "chat_template: jinja\nchat_template_jinja: gone.jinja")
    assert gone.values["prompt.template"] == "tokenizer"
    assert "chat_template_jinja" in gone.listed


@pytest.mark.parametrize(
    ("kind", "template", "train_on"),
    [
        ("alpaca", "alpaca", "completion"),
        ("completion", "none", "all"),
        ("chat_template", "tokenizer", "assistant"),
        ("oasst", "tokenizer", "completion"),
    ],
)
def test_a_type_brings_template_and_loss(kind: str, template: str, train_on: str, settle: Settle) -> None:
    made = settle("axolotl", f"base_model: a/b\nlearning_rate: 1e-4\ndatasets: [{{path: a/b, type: {kind}}}]")
    assert (made.values["prompt.template"], made.values["prompt.train_on"]) == (template, train_on)


@pytest.mark.parametrize(
    ("item", "wanted"),
    [
        ("type: chat_template", "messages"),
        ("type: chat_template.default\nfield_messages: messages", "messages"),
        (
            "type: chat_template\nfield_messages: conversations\n"
            "message_field_role: from\nmessage_field_content: value",
            "sharegpt",
        ),
        ("type: sharegpt", "sharegpt"),
        ("type: alpaca:chat", "alpaca"),
        ("type: alpaca_chat.load_qa", "rows"),
        ("type: completion\nfield: text", "text"),
        ("type: something_of_mine", "rows"),
        ("split: train", "rows"),
    ],
)
def test_types(item: str, wanted: str, settle: Settle) -> None:
    lines = "\n    ".join(item.splitlines())
    made = settle("axolotl", f"base_model: a/b\nlearning_rate: 1e-4\ndatasets:\n  - path: a/b\n    {lines}\n")
    assert made.values["datasets.0.type"] == wanted


def test_fields_that_have_to_be_renamed_are_listed_and_said(settle: Settle) -> None:
    text = (
        "{path: a/b, type: chat_template, field_messages: turns, message_property_mappings: {role: who, content: what}}"
    )
    made = settle("axolotl", f"base_model: a/b\nlearning_rate: 1e-4\ndatasets: [{text}]")
    assert set(made.listed) >= {"datasets.0.field_messages", "datasets.0.message_property_mappings.role"}
    assert any("rows have turns with who and what" in one for one in made.ledger.look)
    made = settle(
        "axolotl", "base_model: a/b\nlearning_rate: 1e-4\ndatasets: [{path: a/b, type: completion, field: body}]"
    )
    assert "rename the field" in made.listed["datasets.0.field"]


def test_roles_to_train(settle: Settle) -> None:
    text = "base_model: a/b\nlearning_rate: 1e-4\ndatasets: [{path: a/b, type: chat_template, roles_to_train: [%s]}]"
    assert settle("axolotl", text % "gpt").values["prompt.train_on"] == "assistant"
    assert settle("axolotl", text % "assistant, user").values["prompt.train_on"] == "all"


def test_files_under_the_name_of_a_reader(settle: Settle) -> None:
    text = "base_model: a/b\nlearning_rate: 1e-4\ndatasets: [{path: json, data_files: %s, type: alpaca, split: train}]"
    assert settle("axolotl", text % "one.jsonl").values["datasets.0.path"] == "one.jsonl"
    made = settle("axolotl", text % "[one.jsonl, two.jsonl]")
    assert [made.values[f"datasets.{at}.path"] for at in (0, 1)] == ["one.jsonl", "two.jsonl"]
    assert made.carried["datasets.0.path"] == "datasets.0.path"
    assert made.listed["datasets.0.split"].startswith("a file is read whole")


def test_hub_keys_and_parts_of_splits(settle: Settle) -> None:
    item = "{path: a/b, type: alpaca, split: 'train[:5%]', name: main, revision: abc}"
    made = settle("axolotl", f"base_model: a/b\nlearning_rate: 1e-4\ndatasets: [{item}]")
    assert made.values["datasets.0.path"] == "hub:a/b"
    assert (made.values["datasets.0.config"], made.values["datasets.0.revision"]) == ("main", "abc")
    assert made.listed["datasets.0.split"].startswith("a part of a split")
    assert made.values["datasets.0.split"] == "train"
    assert any("datasets.0.split: axolotl reads train[:5%]" in one for one in made.ledger.look)


@pytest.mark.parametrize("kind", ["chatml.intel", "chat_template.default", "{field_prompt: q}"])
@pytest.mark.parametrize("method", ["rl: dpo", "rl: grpo", "reward_model: true"])
def test_preferences_are_read_and_not_trained_on(kind: str, method: str, settle: Settle) -> None:
    text = f"base_model: a/b\nlearning_rate: 1e-4\n{method}\nval_set_size: 0\ndatasets: [{{path: a/b, type: {kind}}}]"
    made = settle("axolotl", text)
    assert made.values["datasets.0.type"] == "preference"
    assert made.listed[method.partition(":")[0]].startswith("no equal yet: recipes are supervised")
    words = f"datasets[].type: axolotl trains on preferences or rewards ({method.replace('true', 'True')});"
    assert made.ledger.look[0].startswith(words)
    assert not [name for name in made.values if ".map." in name]


def test_preferences_that_are_off(settle: Settle) -> None:
    made = settle("axolotl", CHAT + "rl:\nreward_model: false")
    assert made.values["datasets.0.type"] == "messages"
    assert not [one for one in made.ledger.look if "preferences" in one]


def test_a_dataset_that_is_none_is_listed(settle: Settle) -> None:
    made = settle("axolotl", "base_model: a/b\nlearning_rate: 1e-4\ndatasets: [text, {type: alpaca}]")
    assert made.values["datasets.0.path"] == "rows.jsonl"
    assert set(made.listed) >= {"datasets.0", "datasets.1.type"}


def test_warmup_and_the_rest_of_the_schedule(settle: Settle) -> None:
    made = settle(
        "axolotl", BASE + "warmup_steps: 0.1\nwarmup_ratio: 0.2\nlr_scheduler: linear\ncosine_min_lr_ratio: 0.1"
    )
    assert made.values["optimizer.warmup_ratio"] == 0.1
    assert made.listed["warmup_ratio"] == "warmup_steps is written too, and wins"
    assert made.listed["cosine_min_lr_ratio"].startswith("optimizer.min_lr_ratio: has no effect with lr_scheduler")
    made = settle("axolotl", BASE + "lr_scheduler: constant\nwarmup_steps: 10")
    assert "optimizer.warmup_steps" not in made.values
    assert made.listed["warmup_steps"].startswith("lr_scheduler constant has no warm-up")


def test_optimizers(settle: Settle) -> None:
    assert settle("axolotl", BASE + "optimizer: paged_lion_8bit").values["optimizer.name"] == "lion_8bit"
    assert settle("axolotl", BASE + "optimizer: lion_8bit").values["optimizer.betas"] == [0.9, 0.999]
    for name, note in (
        ("paged_adamw_8bit", "pages"),
        ("adamw_torch_fused", "fused kernel"),
        ("ao_adamw_8bit", "states"),
    ):
        assert note in settle("axolotl", BASE + f"optimizer: {name}").origins["optimizer.name"]
    made = settle("axolotl", BASE + "optimizer: came_pytorch\nadam_beta2: 0.95\nadam_beta3: 0.9999")
    assert made.values["optimizer.name"] == "adamw"
    assert made.listed["optimizer"].startswith("recipes do not have came_pytorch")
    assert made.values["optimizer.betas"] == [0.9, 0.95]
    made = settle("axolotl", BASE + "optimizer: sgd\nadam_beta1: 0.8")
    assert "optimizer.betas" not in made.values
    assert made.listed["adam_beta1"].startswith("optimizer.betas: unknown key for name: sgd")


def test_batches(settle: Settle) -> None:
    made = settle("axolotl", BASE + "micro_batch_size: 4\nbatch_size: 32")
    assert made.values["training.gradient_accumulation_steps"] == 8
    made = settle("axolotl", BASE + "gradient_accumulation_steps: 2\nbatch_size: 32")
    assert made.values["training.gradient_accumulation_steps"] == 2
    assert made.listed["batch_size"].startswith("gradient_accumulation_steps is written too")


def test_measuring_and_saving(settle: Settle) -> None:
    text = "eval_steps: 0.1\nsave_steps: 0.2\nearly_stopping_patience: 3\nsave_total_limit: 4"
    made = settle("axolotl", BASE + text)
    assert made.listed["eval_steps"].startswith("no equal for a share of the run")
    assert made.listed["save_steps"].startswith("no equal for a share of the run")
    assert made.listed["early_stopping_patience"].startswith("evaluation.early_stopping")
    assert made.values["training.keep_checkpoints"] == 4
    made = settle("axolotl", BASE + "eval_strategy: epoch\nsave_strategy: epoch\nsave_steps: 5")
    assert "training.save_steps" not in made.values
    assert any(one.startswith("evaluation.every_steps: axolotl measures at the end") for one in made.ledger.look)
    made = settle("axolotl", BASE + "eval_strategy: 'no'\neval_steps: 50\nsave_strategy: steps\nsave_steps: 5")
    assert "evaluation.every_steps" not in made.values
    assert made.carried["save_strategy"] == "training.save_steps"


def test_deepspeed_by_file_by_name_and_unread(settle: Settle, tmp_path: Path) -> None:
    zero = {"stage": 3, "offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "nvme"}}
    (tmp_path / "mine.json").write_text(json.dumps({"zero_optimization": zero}))
    made = settle("axolotl", BASE + "deepspeed: mine.json")
    assert made.values["hardware.zero_stage"] == 3
    assert (made.values["hardware.offload.parameters"], made.values["hardware.offload.optimizer"]) == ("cpu", "nvme")
    made = settle("axolotl", BASE + "deepspeed: deepspeed_configs/zero3_bf16_cpuoffload_all.json")
    assert (made.values["hardware.offload.parameters"], made.values["hardware.offload.optimizer"]) == ("cpu", "cpu")
    assert settle("axolotl", BASE + "deepspeed: zero1.json").values["hardware.zero_stage"] == 1
    (tmp_path / "odd.json").write_text("{")
    for name in ("odd.json", "of_mine.json"):
        made = settle("axolotl", BASE + f"deepspeed: {name}")
        assert made.listed["deepspeed"].startswith("neither the file is here")


def test_fsdp(settle: Settle) -> None:
    made = settle("axolotl", BASE + "fsdp: [full_shard]\nfsdp_config: {fsdp_offload_params: false}")
    assert made.values["hardware.zero_stage"] == 3
    assert "hardware.offload.parameters" not in made.values
    assert "optimizer state are sharded" in made.origins["hardware.zero_stage"]


@pytest.mark.parametrize(
    ("text", "stage", "key"),
    [
        ("fsdp: [shard_grad_op, auto_wrap]", 2, "fsdp.0"),
        ("fsdp: full_shard offload", 3, "fsdp"),
        ("fsdp: no_shard", None, "fsdp"),
        ("fsdp: [auto_wrap]\nfsdp_config: {fsdp_sharding_strategy: SHARD_GRAD_OP}", 2, "fsdp_config"),
        ("fsdp_config: {sharding_strategy: 1}", 3, "fsdp_config"),
        ("fsdp_config: {reshard_after_forward: false}", 2, "fsdp_config"),
        ("fsdp_config: {fsdp_sharding_strategy: HYBRID_SHARD}", 3, "fsdp_config"),
    ],
)
def test_how_fsdp_shards(text: str, stage: int | None, key: str, settle: Settle) -> None:
    made = settle("axolotl", BASE + text)
    assert made.values["hardware.zero_stage"] == stage
    assert next(name for name, place in made.carried.items() if place == "hardware.zero_stage").startswith(key)
    assert not [why for why in made.listed.values() if why.startswith("unknown to axolotl")]
    assert ("hardware.offload.parameters" in made.values) == ("offload" in text)
    assert any("shards within each machine" in one for one in made.ledger.look) == ("HYBRID" in text)


def test_an_unknown_way_to_shard_is_said(settle: Settle) -> None:
    made = settle("axolotl", BASE + "fsdp_config: {fsdp_sharding_strategy: SPIRAL, fsdp_forward_prefetch: true}")
    assert made.values["hardware.zero_stage"] == 3
    assert "hardware.zero_stage: 3 stands for FSDP's spiral" in made.ledger.look
    assert made.listed["fsdp_config.fsdp_forward_prefetch"].startswith("FSDP becomes DeepSpeed ZeRO")


def test_an_unknown_key_is_named_with_the_nearest(settle: Settle) -> None:
    made = settle("axolotl", BASE + "lora_droput: 0.1\nzzzz: 1\nspecial_tokens: {pad_tokn: x}")
    assert made.listed["lora_droput"] == (
        "unknown to axolotl too, which drops it without a word; did you mean lora_dropout?"
    )
    assert made.listed["zzzz"] == "unknown to axolotl too, which drops it without a word"
    assert made.listed["special_tokens.pad_tokn"].endswith("did you mean pad_token?")


def test_what_is_off_or_empty_is_said_to_be(settle: Settle) -> None:
    made = settle(
        "axolotl", BASE + "torch_compile: false\nneftune_noise_alpha:\nadam_epsilon: small\ntokenizer_config: a/t"
    )
    assert made.listed["torch_compile"] == "off: nothing to carry"
    assert made.listed["neftune_noise_alpha"] == "empty: nothing to carry"
    assert made.listed["adam_epsilon"] == 'optimizer.epsilon: expected a number, got "small"'
    assert made.values["model.tokenizer"] == "a/t"


def test_a_value_that_must_be_there_is_filled_in_and_said(settle: Settle) -> None:
    made = settle("axolotl", "base_model: a/b\nlearning_rate: fast\nmax_steps: -1\nnum_epochs: many")
    assert made.values["optimizer.learning_rate"] == 2e-4
    assert made.listed["learning_rate"].startswith("optimizer.learning_rate: expected a number")
    assert any(
        one.startswith("optimizer.learning_rate: the learning rate is not in the file") for one in made.ledger.look
    )
    assert made.values["training.num_epochs"] == 1


@pytest.mark.parametrize(("there", "here"), [("drop", "drop"), ("truncate", "right"), ("raise", "error")])
def test_rows_that_are_too_long(there: str, here: str, settle: Settle) -> None:
    assert settle("axolotl", BASE + f"excess_length_strategy: {there}").values["prompt.truncation"] == here


def test_what_changes_the_learning_is_said_at_the_top(settle: Settle) -> None:
    made = settle("axolotl", LORA + "unfrozen_parameters: [a]\nlora_modules_to_save: [lm_head]\nneftune_noise_alpha: 5")
    said = [one.partition(":")[0] for one in made.ledger.look]
    assert {"unfrozen_parameters", "lora_modules_to_save", "neftune_noise_alpha"} <= set(said)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokens", "tokens: [<a>]"),
        ("special_tokens.eos_token", "special_tokens: {eos_token: </s>}"),
        ("peft_layers_to_transform", "peft_layers_to_transform: [0, 1]"),
        ("embedding_lr", "embedding_lr: 1e-5"),
        ("lora_model_dir", "lora_model_dir: ./adapter"),
        ("relora", "relora: true"),
    ],
)
def test_other_changes_of_the_learning_are_said_too(name: str, text: str, settle: Settle) -> None:
    made = settle("axolotl", LORA + text)
    assert [one for one in made.ledger.look if one.startswith(f"{name}: changes what is learnt")]


def test_what_is_off_changes_nothing(settle: Settle) -> None:
    made = settle("axolotl", LORA + "relora: false\nneftune_noise_alpha: 0\ntokens: []\nspecial_tokens: {pad_token: x}")
    assert not [one for one in made.ledger.look if "changes what is learnt" in one]


def test_each_special_token_has_a_reason_of_its_own(settle: Settle) -> None:
    made = settle("axolotl", BASE + "special_tokens: {eos_token: a, bos_token: b, pad_token: c, unk_token: d}")
    whys = [made.listed[f"special_tokens.{name}_token"] for name in ("eos", "bos", "pad", "unk")]
    assert len(set(whys)) == 4
    assert "pads" in whys[2]
    assert not [why for why in (whys[0], whys[1], whys[3]) if "pad" in why]


def test_one_refused_layer_leaves_the_others(settle: Settle) -> None:
    llama = LORA.replace("owner/model", "meta-llama/Llama-3.1-8B")
    made = settle("axolotl", llama + "lora_target_modules: [q_proj, lm_head, v_proj, wq]")
    assert made.values["lora.target_modules"] == ["q_proj", "v_proj"]
    assert made.origins["lora.target_modules"].endswith("; without wq; without lm_head")
    assert set(made.listed) & {f"lora_target_modules.{at}" for at in range(4)} == {
        "lora_target_modules.1",
        "lora_target_modules.3",
    }
    assert any(one.startswith("lora.target_modules: lm_head is left out: ") for one in made.ledger.look)


def test_the_experts_of_mixtral_are_said_to_be_left_out(settle: Settle) -> None:
    mixtral = LORA.replace("owner/model", "mistralai/Mixtral-8x7B-v0.1")
    names = "lora_dropout: 0.05\nlora_target_modules: [q_proj, k_proj, v_proj, o_proj, w1, w2, w3]"
    made = settle("axolotl", mixtral + names)
    assert made.values["lora.target_modules"] == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert made.values["lora.dropout"] == 0.05
    assert any("all-linear has them" in one for one in made.ledger.look)


def test_what_stands_in_the_place_of_a_refused_value_is_said(settle: Settle) -> None:
    mixtral = LORA.replace("owner/model", "mistralai/Mixtral-8x7B-v0.1")
    look = settle("axolotl", mixtral + "lora_dropout: 0.05\nlora_target_linear: true").ledger.look
    assert any(
        one.startswith("lora.dropout: 0.05 is not carried: ") and one.endswith("; 0.0 stands in its place")
        for one in look
    )
    llama = LORA.replace("owner/model", "meta-llama/Llama-3.1-8B")
    look = settle("axolotl", llama + "lora_target_modules: [lm_head]").ledger.look
    assert any(one.endswith("; all-linear stands in its place") for one in look)
    look = settle("axolotl", BASE + "early_stopping_patience: many").ledger.look
    assert any(one.endswith("; there is no evaluation.early_stopping") for one in look)


@pytest.mark.parametrize(
    ("kind", "template", "said"),
    [
        ("alpaca", "alpaca", False),
        ("alpaca:chatml", "chatml", False),
        ("completion", "none", False),
        ("{field_output: a}", "none", False),
        ("alpaca:chat", "llama3", True),
        ("oasst", "llama3", True),
        ("chat_template", "llama3", False),
        ("alpaca}, {path: b.jsonl, type: chat_template", "llama3", True),
        ("{field_output: a}}, {path: b.jsonl, type: chat_template", "llama3", True),
    ],
)
def test_a_type_that_brings_its_wording_keeps_it(kind: str, template: str, said: bool, settle: Settle) -> None:
    text = f"base_model: a/b\nlearning_rate: 1e-4\nchat_template: llama3\ndatasets: [{{path: a.jsonl, type: {kind}}}]"
    made = settle("axolotl", text)
    assert made.values["prompt.template"] == template
    assert any(one.startswith("prompt.template: axolotl words rows of ") for one in made.ledger.look) == said
    assert ("chat_template" in made.listed) == (template != "llama3")
