"""`python -m launch.performance.trl_run JOB.json SETTING RESULT.json`: TRL's GRPOTrainer, for `launch.performance.step`.

The same work as our step: the same prompts in the same order, batch, sampling, reward, AdamW and learning rate, one update
per batch, the loss a mean over all tokens, no KL term. Options that only TRL has are set to the fastest: no correction for the
mismatch of sampler and learner, which costs it a second forward pass (our ratio is to the sampler's own log-probabilities).
"""

import hashlib
import json
import math
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from launch.cli.command import command
from launch.cli.options import Parser

SETTINGS: dict[str, dict[str, Any]] = {
    "checkpointing, large batches": {
        "gradient_checkpointing": True,
        "per_device_train_batch_size": 24,
        "model_init_kwargs": {"dtype": "float32"},
    },
    "no checkpointing": {
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 4,
        "model_init_kwargs": {"dtype": "float32"},
    },
    # For small models, and on a CPU.
    "no checkpointing, whole step at once": {
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 1024,
        "model_init_kwargs": {"dtype": "float32"},
    },
    # Less work than ours: weights and optimizer state in bfloat16 only, ours are in float32 as well.
    "no checkpointing, bfloat16 throughout": {
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 8,
        "model_init_kwargs": {"dtype": "bfloat16"},
    },
}
"""Settings to try, of which the best one counts; tuned for an 80 GB GPU unless their comment says otherwise. Batch sizes are
upper limits, because they must divide the step's completions."""


def coin(text: str) -> float:
    """A number in [0, 1) that a completion's text decides: all different, so that every group has something to learn."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def run(job: dict[str, Any], setting: dict[str, Any], scratch: Path) -> dict[str, list[float]]:
    """Seconds and sampled tokens of every step after the first."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from openrs_ray.rewards.judge import Judge
    from openrs_ray.rewards.records import JudgeItem

    ends, tokens = [], []
    judge = Judge(job["reward_weights"], job["extraction"])

    def reward(completions: list[Any], completion_ids: list[list[int]], gold: list[list[str]], **_: Any) -> list[float]:
        texts = [job["opening"] + completion[0]["content"] for completion in completions]
        for text, ids, answers in zip(texts, completion_ids, gold, strict=True):
            finish = "length" if len(ids) == job["max_completion_tokens"] else "stop"
            judge(JudgeItem(text, len(ids), finish, tuple(answers)))
        tokens.append(float(sum(map(len, completion_ids))))
        return [coin(text) for text in texts]

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    completions = job["problems_per_step"] * job["completions_per_problem"]
    batch = math.gcd(completions, setting["per_device_train_batch_size"])
    on_gpu = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": job["gpu_memory_fraction"],
        "vllm_max_model_length": job["max_sequence_tokens"],
        "vllm_importance_sampling_correction": False,
        "use_liger_kernel": True,
        "bf16": True,
    }
    on_cpu = {"use_cpu": True, "bf16": False, "use_vllm": False}
    arguments = {
        "output_dir": str(scratch),
        "max_steps": job["steps"],
        "num_generations": job["completions_per_problem"],
        "max_completion_length": job["max_completion_tokens"],
        "gradient_accumulation_steps": completions // batch,
        "temperature": job["temperature"],
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "optim": "adamw_torch_fused",
        "beta": 0.0,
        "num_iterations": 1,
        "loss_type": "dapo",
        "shuffle_dataset": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **(on_gpu if job["gpu"] else on_cpu),
        **setting,
        "per_device_train_batch_size": batch,
    }
    trainer = GRPOTrainer(
        model=job["model"],
        reward_funcs=reward,
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_list(job["rows"]),
        callbacks=[Clock()],
    )
    trainer.train()
    return {"seconds": [b - a for a, b in pairwise(ends)], "tokens": tokens[1:]}


@command
def main(arguments: list[str]) -> None:
    parser = Parser("performance.trl_run", __doc__)
    parser.add_argument("job", metavar="JOB.json", type=Path)
    parser.add_argument("setting", metavar="SETTING", choices=SETTINGS)
    parser.add_argument("result", metavar="RESULT.json", type=Path)
    options = parser.parse_args(arguments)
    content = json.loads(options.job.read_text(encoding="utf-8"))
    measured = run(content, SETTINGS[options.setting], options.result.with_suffix(""))
    options.result.write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
