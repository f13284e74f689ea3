"""What the deepspeed backend writes, read by accelerate's own loader and plugin and by DeepSpeed's configuration."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands import launch as launching
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DeepSpeedPlugin, DistributedType
from accelerate.utils.launch import prepare_deepspeed_cmd_env

from sysml_run import document, overrides, plan, rules
from sysml_run.backends.base import PLACE, Launch, shell
from sysml_run.machine import Machine
from sysml_run.resolve import Resolved, resolve

RECIPE = """\
version: 1
name: one
model: {base_model: "tiny:llama"}
datasets: [{path: ROWS, type: messages}]
optimizer: {name: adamw, learning_rate: 1e-3}
training: {max_steps: 2, micro_batch_size: 2, gradient_accumulation_steps: 4, max_grad_norm: 0.5}
"""
MACHINE = Machine(16, 2**36, "CPU", True, "has bf16", sys.executable)
METHODS = {"full": [], "lora": ["lora={}"], "qlora": ["lora={}", "quantization.load=nf4"]}
GRID = [
    {"stage": stage, "optimizer": optimizer, "parameters": parameters, "precision": precision, "devices": devices}
    | {"nodes": nodes, "method": method}
    for stage, (optimizer, parameters), precision, (devices, nodes), method in itertools.product(
        (0, 1, 2, 3),
        (("none", "none"), ("cpu", "none"), ("cpu", "cpu"), ("nvme", "nvme")),
        ("bf16", "fp16", "fp32"),
        ((1, 1), (8, 1), (8, 2)),
        METHODS,
    )
]


def resolved(cell: dict[str, Any], accelerator: str = "gpu") -> Resolved:
    hardware: dict[str, Any] = {"accelerator": accelerator, "devices": cell["devices"], "zero_stage": cell["stage"]}
    hardware |= {"precision": cell["precision"], "nodes": cell["nodes"]}
    hardware |= {"offload": {"optimizer": cell["optimizer"], "parameters": cell["parameters"]}}
    if accelerator == "cpu":
        del hardware["nodes"]
    text = RECIPE.replace("ROWS", __file__)
    return resolve(
        overrides.apply(document.parse(text, "r.yaml"), [f"hardware={json.dumps(hardware)}", *METHODS[cell["method"]]])
    )


def accepted(cell: dict[str, Any]) -> bool:
    """Whether no rule of ours refuses the recipe."""
    made = resolved(cell)
    found = rules.check(made.recipe, document.parse(RECIPE, "r.yaml"), running=True)
    return not any(problem.severity == "error" and problem.pointer.startswith("hardware") for problem in found)


def written(made: Resolved, run: Path) -> tuple[Launch, dict[str, Any], dict[str, Any]]:
    """The launch, and accelerate's and DeepSpeed's file, which are in the run directory."""
    (train,) = [each for each in plan.make(made, MACHINE, str(run)).launches if each.stage == "train"]
    for name, text in train.files.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(text)
    files = train.files
    return train, yaml.safe_load(files["launch/accelerate.yaml"]), json.loads(files["launch/deepspeed.json"])


def leaves(value: Any) -> list[Any]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if below is None else [leaf for one in below for leaf in leaves(one)]


@pytest.fixture(scope="module")
def configuration() -> Any:
    """DeepSpeed's class, asked in a world of as many processes as the recipe wants."""
    from deepspeed.runtime import config

    class Mpu:
        world = 1

        def get_data_parallel_world_size(self) -> int:
            return self.world

    mpu = Mpu()

    def read(values: dict[str, Any], world: int) -> Any:
        mpu.world = world
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(config.dist, "get_rank", lambda *_: 0)
            return config.DeepSpeedConfig(values, mpu=mpu)

    return read


def test_the_grid_has_what_rules_allow_and_what_they_refuse() -> None:
    allowed = [cell for cell in GRID if accepted(cell)]
    assert len(GRID) == 432
    assert len(allowed) == 243  # offloading wants a stage that shards what is offloaded


def test_every_file_of_the_grid_is_accepted(tmp_path: Path, configuration: Any) -> None:
    run = tmp_path / "it's a run"
    for cell in filter(accepted, GRID):
        _, launcher, zero = written(resolved(cell), run)
        world = cell["devices"] * cell["nodes"]
        assert set(launcher) <= set(ClusterConfig.__dataclass_fields__)
        read = load_config_from_file(str(run / "launch/accelerate.yaml"))
        assert (read.distributed_type, read.num_processes) == (DistributedType.DEEPSPEED, world)
        assert read.deepspeed_config["deepspeed_config_file"] == str(run / "launch/deepspeed.json")
        assert "auto" not in leaves(zero)
        assert not {"optimizer", "scheduler"} & set(zero)
        found = configuration(zero, world)
        assert found.zero_optimization_stage == cell["stage"]
        assert (found.train_micro_batch_size_per_gpu, found.gradient_accumulation_steps) == (2, 4)
        assert (found.train_batch_size, found.gradient_clipping) == (8 * world, 0.5)
        formats = (found.bfloat16_config.enabled, found.float16_config.enabled)
        assert formats == (cell["precision"] == "bf16", cell["precision"] == "fp16")
        sharded = found.zero_config
        places = [sharded.offload_optimizer, sharded.offload_param]
        devices = [getattr(place, "device", "none") or "none" for place in places]
        assert [str(getattr(device, "value", device)) for device in devices] == [cell["optimizer"], cell["parameters"]]
        assert all(place is None or place.device != "nvme" or place.nvme_path for place in places)
        assert sharded.gather_16bit_weights_on_model_save == (cell["stage"] == 3)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_processor_holds_fp32_weights(precision: str, tmp_path: Path, configuration: Any) -> None:
    cell = GRID[0] | {"stage": 3, "precision": precision, "devices": 2, "method": "lora"}
    launch, launcher, zero = written(resolved(cell, "cpu"), tmp_path)
    found = configuration(zero, 2)
    assert not found.bfloat16_config.enabled
    assert found.torch_autocast_enabled == (precision == "bf16")
    assert found.zero_config.param_persistence_threshold == 0
    assert launcher["use_cpu"] is True
    assert launch.env["DS_ACCELERATOR"] == "cpu"


def test_a_key_that_deepspeed_does_not_know_would_be_seen(tmp_path: Path, configuration: Any) -> None:
    zero = written(resolved(GRID[0]), tmp_path)[2]
    zero["zero_optimization"]["stagee"] = 3
    with pytest.raises(ValueError, match="stagee"):
        configuration(zero, 1)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], tuple[Any, dict[str, str]]]:
    """What `accelerate launch` would start: its arguments and environment, just before it does."""

    def prepare(words: list[str]) -> tuple[Any, dict[str, str]]:
        seen: list[Any] = []
        monkeypatch.setattr(launching, "deepspeed_launcher", seen.append)
        launching.launch_command(launching.launch_command_parser().parse_args(words))
        (arguments,) = seen
        return arguments, prepare_deepspeed_cmd_env(arguments)[1]

    return prepare


def test_one_machine_gets_a_free_port(tmp_path: Path, prepared: Any) -> None:
    launch, _, _ = written(resolved(GRID[0] | {"stage": 2, "devices": 8}), tmp_path)
    arguments, env = prepared(list(launch.argv[2:]))
    assert not any((arguments.multi_gpu, arguments.use_fsdp, arguments.tpu))
    assert (arguments.nproc_per_node, env["ACCELERATE_USE_DEEPSPEED"]) == ("8", "true")
    assert env["ACCELERATE_DEEPSPEED_CONFIG_FILE"] == str(tmp_path / "launch/deepspeed.json")
    assert int(arguments.master_port) > 0
    assert (arguments.module, arguments.training_script) == (True, "sysml_run.worker")


SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MACHINE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}, (1, "10.0.0.1", 1234)),
        ({"SLURM_NODEID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.2"}, (1, "10.0.0.2", 29500)),
    ],
)
def test_several_machines_find_their_place_in_the_environment(
    variables: dict[str, str], expected: tuple[Any, ...], tmp_path: Path, prepared: Any
) -> None:
    launch, _, _ = written(resolved(GRID[0] | {"stage": 3, "devices": 8, "nodes": 2}), tmp_path)
    line = shell((sys.executable, "-c", SHOW, *launch.argv[2:]))
    done = subprocess.run(["/bin/sh", "-c", line], env=variables, capture_output=True, text=True, check=True)
    read, _ = prepared(json.loads(done.stdout))
    assert (read.machine_rank, read.main_process_ip, read.main_process_port) == expected
    assert (read.nproc_per_node, read.nnodes, read.node_rank) == ("8", "2", 1)
    assert (read.rdzv_backend, read.rdzv_endpoint) == ("static", f"{expected[1]}:{expected[2]}")


def test_a_machine_that_does_not_know_its_place_says_so(tmp_path: Path) -> None:
    launch, _, _ = written(resolved(GRID[0] | {"stage": 3, "nodes": 2}), tmp_path)
    done = subprocess.run(["/bin/sh", "-c", shell(launch.argv)], env={}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "the number of this machine, from 0" in done.stderr
    assert set(PLACE.values()) <= set(launch.argv)


def test_accelerates_plugin_fills_nothing_in(tmp_path: Path) -> None:
    cell = GRID[0] | {"stage": 3, "devices": 8, "optimizer": "cpu", "parameters": "cpu"}
    zero = written(resolved(cell), tmp_path)[2]
    plugin = DeepSpeedPlugin(hf_ds_config=str(tmp_path / "launch/deepspeed.json"), zero3_init_flag=True)
    plugin.set_mixed_precision("bf16")
    filled = {name: value for name, value in plugin.deepspeed_config.items() if name != "steps_per_print"}
    assert filled == zero
