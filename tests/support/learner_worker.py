"""Learner ranks in processes of their own: `python learner_worker.py FOLDER '{"RANKS": ["SCENARIO", ...], ...}'`.

Each scenario runs on that many ranks at once and leaves FOLDER/<ranks>/<scenario>.<rank>.pt for the test that looks at it.
Many scenarios share one process, and all processes are forks of one, because importing DeepSpeed takes far longer than any
scenario.
"""

import asyncio
import copy
import gc
import importlib
import json
import math
import os
import random
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import transformers
from live_memory import Live
from several_updates import STEPS, UPDATES, die_before, learner_group, train
from tiny import RECORDED_LOSSES, make_config, make_sequences, make_temperatures, make_turns

from actors.learner.rank import LearnerRank
from actors.learner.state import random_states
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.packing import MicroBatch, pack, split
from openrs_ray.algorithm.policy import Policy, load_policy
from openrs_ray.errors import RunError
from openrs_ray.models.lora import adapted_layers
from openrs_ray.run.checkpoints import CheckpointStore
from openrs_ray.run.step_settings import Changes, StepSettings

transformers.utils.logging.disable_progress_bar()
rank, ranks, folder = 0, 0, Path()
"""Set in each fork."""


class PlainSteps(LearnerRank):
    """SGD at learning rate 1 moves the weights by exactly the gradient."""

    def make_optimizer(self, policy: Policy) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)


class PlainAdapters(PlainSteps):
    """The same, with adapters that have been trained before: B is not 0."""

    def make_optimizer(self, policy: Policy) -> torch.optim.Optimizer:
        generator = torch.Generator().manual_seed(1)
        for layer in adapted_layers(policy).values():
            layer.up.data.copy_(0.1 * torch.randn(layer.up.shape, generator=generator))
        return super().make_optimizer(policy)


class SmallBuckets(LearnerRank):
    """Gradient buckets as small beside a small model as the usual ones beside a real model."""

    def deepspeed_settings(self) -> dict[str, Any]:
        config = super().deepspeed_settings()
        config["zero_optimization"]["reduce_bucket_size"] = 500_000
        return config


def learner(kind: type[LearnerRank], start_model: str = "untied", **changes: dict) -> LearnerRank:
    made = kind(make_config(folder, ranks, **changes), str(folder.parent / "models" / start_model), rank, ranks, "cpu")
    made.start(str(folder / "ranks"), "a token")
    return made


def tokens(sequences: list[TrainingSequence]) -> int:
    return sum(sequence.sampled_tokens for sequence in sequences)


def weights(of: LearnerRank) -> dict[str, torch.Tensor]:
    """Full weights by name (the float32 masters where the model itself is bfloat16)."""
    if of.config.model.dtype == "bfloat16":
        from deepspeed.utils import safe_get_full_fp32_param

        trained = {name: p for name, p in of.policy.model.named_parameters() if p.requires_grad}
        return {name: safe_get_full_fp32_param(p).clone() for name, p in trained.items()}
    return {
        spec.name: tensor.clone()
        for bucket, tensors in of.full_parameters(1 << 14)
        for spec, tensor in zip(bucket.parameters, tensors, strict=True)
    }


def step(of: LearnerRank, sequences: list[TrainingSequence], number: int = 1, **by: int) -> dict[str, Any]:
    before = weights(of)
    metrics = of.train_step(split(sequences, ranks, **by)[rank], tokens(sequences), number)
    after = weights(of)
    return {"metrics": metrics, "gradient": {name: before[name] - after[name] for name in after}, "before": before}


def gradients(stage: int) -> dict[str, Any]:
    """The same step, split in different ways; of a single sequence, the second rank has nothing."""
    return {
        (count, budget): step(
            learner(PlainSteps, learner={"zero_stage": stage, "micro_batch_tokens": 64}),
            make_sequences(9)[9 - count :],
            micro_batch_tokens=budget,
        )
        for count, budget in [(9, 40), (9, 64), (9, 4096), (1, 64)]
    }


def turns(stage: int, dtype: str) -> dict[str, Any]:
    """Rollouts of several turns, with the loss that divides by each one's length."""
    changes = {"model": {"dtype": dtype}, "loss": {"normalization": "sequences"}}
    made = learner(PlainSteps, learner={"zero_stage": stage, "micro_batch_tokens": 64}, **changes)
    return step(made, make_turns(9), micro_batch_tokens=64)


class TinyBuckets(PlainSteps):
    """Most parameters are larger than a gradient bucket, as an embedding of 233 million parameters is."""

    def deepspeed_settings(self) -> dict[str, Any]:
        config = super().deepspeed_settings()
        config["zero_optimization"]["reduce_bucket_size"] = 1000
        return config


def large_parameters(stage: int) -> dict[str, Any]:
    # The weights move by 64 times the gradient, so that their rounding hides nothing of it.
    made = learner(TinyBuckets, learner={"zero_stage": stage, "micro_batch_tokens": 64, "learning_rate": 64.0})
    shapes = [spec.shape for spec in made.parameter_specs()]
    return {"largest": max(map(math.prod, shapes)), **step(made, make_sequences(9), micro_batch_tokens=64)}


def with_reference(stage: int) -> dict[str, Any]:
    """The second step's gradient, when policy and frozen start model differ; and with that one in the host's memory."""
    got = {}
    for offload in (False, True):
        settings = {"zero_stage": stage, "learning_rate": 0.1, "offload_reference": offload}
        made = learner(PlainSteps, "tied", learner=settings, loss={"kl_beta": 0.3})
        step(made, make_sequences(9), micro_batch_tokens=64)
        got[offload] = step(made, make_sequences(9, seed=1), 2, micro_batch_tokens=64)
    return {**got[False], "offloaded": got[True]}


def distill(stage: int, top_k: int, dtype: str) -> dict[str, Any]:
    """A step with a teacher of another family, and the same with that one in the host's memory."""
    got = {}
    for offload in (False, True):
        teacher = {"path": str(folder.parent / "models/tied"), "weight": 0.75, "top_k": top_k, "offload": offload}
        settings = {"zero_stage": stage, "micro_batch_tokens": 64}
        loss = {"kind": "distill", "teacher": teacher}
        made = learner(PlainSteps, learner=settings, loss=loss, model={"dtype": dtype})
        got[offload] = step(made, make_sequences(9), micro_batch_tokens=64)
    return {**got[False], "offloaded": got[True]}


def distill_adapters(stage: int, top_k: int) -> dict[str, Any]:
    """Ten steps of adapters on the same completions, by a teacher alone."""
    teacher = {"path": str(folder.parent / "models/tied"), "top_k": top_k}
    settings = {"zero_stage": stage, "learning_rate": 1e-2, "micro_batch_tokens": 64, "lora": {"rank": 8}}
    made = learner(LearnerRank, learner=settings, loss={"kind": "distill", "teacher": teacher})
    base, sequences = part(made, "base"), make_sequences(9)
    batches = split(sequences, ranks, micro_batch_tokens=64)[rank]
    metrics = [made.train_step(batches, tokens(sequences), number) for number in range(1, 11)]
    unmoved = all(torch.equal(base[name], tensor) for name, tensor in part(made, "base").items())
    return {"teacher_kl": [each["teacher_kl"] for each in metrics], "unmoved": unmoved}


def temperatures(stage: int, dtype: str) -> dict[str, Any]:
    """One step on completions of two stages, sampled at 0.5 and at 1.5."""
    made = learner(PlainSteps, learner={"zero_stage": stage, "micro_batch_tokens": 64}, model={"dtype": dtype})
    return step(made, make_temperatures(9), micro_batch_tokens=64)


def new_reference(stage: int, dtype: str, optimizer: str) -> dict[str, Any]:
    """Two steps, of which the second's policy becomes the reference; then two with it, without a break, resumed, and rebuilt."""
    settings = {"zero_stage": stage, "learning_rate": 1e-2, "optimizer": optimizer}
    run = {"name": f"reference-{stage}-{dtype}-{optimizer}", "folder": str(folder), "steps": 10}
    changes = {"run": run, "loss": {"kl_beta": 0.3}}

    def new() -> LearnerRank:
        return learner(SmallParts, learner=settings, model={"dtype": dtype}, **changes)

    def take(of: LearnerRank, number: int, reference_step: int) -> dict[str, float]:
        made = make_sequences(9, seed=number)
        now = StepSettings.of(of.config, Changes(reference_step=reference_step))
        return of.train_step(split(made, ranks, micro_batch_tokens=64)[rank], tokens(made), number, settings=now)

    unbroken = new()
    before = [take(unbroken, number, 0) for number in (1, 2)]
    store = CheckpointStore(unbroken.config.run.path / "checkpoints")
    target = store.folder / "step-000002.tmp"
    if rank == 0:
        store.open()
        store.begin(2)
    torch.distributed.barrier()
    unbroken.save(target)
    unbroken.export(target / "policy")
    if rank == 0:
        store.commit(2, "kept", {"step": 2})
    torch.distributed.barrier()
    at_reset = weights(unbroken)
    after = [take(unbroken, 3, 2)]
    moved, kept = weights(unbroken), moments(unbroken)
    after.append(take(unbroken, 4, 2))
    resumed = new()
    resumed.load(store.folder / "step-000002")
    again = [take(resumed, number, 2) for number in (3, 4)]
    return {
        "before": before, "after": after, "again": again, "at_reset": at_reset, "moved": moved, "kept": kept,
        "unbroken": weights(unbroken), "resumed": weights(resumed), "policy": store.folder / "step-000002" / "policy",
    }  # fmt: skip


def part(of: LearnerRank, name: Any) -> dict[str, torch.Tensor]:
    """Full tensors that leave the learner, by name."""
    return {
        spec.name: tensor.clone()
        for bucket, tensors in of.full_parameters(1 << 14, name)
        for spec, tensor in zip(bucket.parameters, tensors, strict=True)
    }


def lora(stage: int, layers: str, checkpointing: int) -> dict[str, Any]:
    """A step of adapters, with a penalty whose reference is the model without them."""
    settings = {"zero_stage": stage, "lora": {"rank": 4, "layers": layers}, "micro_batch_tokens": 64}
    settings["gradient_checkpointing"] = bool(checkpointing)
    made = learner(PlainAdapters, "tied", learner=settings, loss={"kl_beta": 0.3})
    before, base = part(made, "adapters"), part(made, "base")
    metrics = made.train_step(
        split(make_sequences(9), ranks, micro_batch_tokens=64)[rank], tokens(make_sequences(9)), 1
    )
    after = part(made, "adapters")
    unmoved = all(torch.equal(base[name], tensor) for name, tensor in part(made, "base").items())
    return {"before": before, "gradient": {name: before[name] - after[name] for name in after}, "metrics": metrics,
            "unmoved": unmoved}  # fmt: skip


def lora_reference(stage: int, dtype: str) -> dict[str, Any]:
    """Log-probabilities without adapters, by the policy that has them and by a second copy of the start model."""
    made = learner(
        PlainAdapters, learner={"zero_stage": stage, "lora": {"rank": 4}}, model={"dtype": dtype}, loss={"kl_beta": 0.3}
    )
    batch = pack(make_sequences(9))
    arguments, (found,) = made._arguments(batch, 1.0), made._reference_logprobs([batch], True)
    copied = load_policy(made.model_path, dtype, made.config.learner.logprob_chunk_tokens)
    with torch.no_grad():
        with_adapters = made.engine(**arguments)
        return {"found": found, "expected": copied(**arguments), "with": with_adapters}


def lora_use(stage: int, start_model: str, dtype: str) -> dict[str, Any]:
    """Scores and export of adapters that have been trained for two steps."""
    settings = {"zero_stage": stage, "learning_rate": 1e-2, "micro_batch_tokens": 64, "lora": {"rank": 4, "alpha": 12}}
    made = learner(LearnerRank, start_model, learner=settings, model={"dtype": dtype})
    steps(made, range(1, 3))
    target = folder / f"export-lora-{stage}-{start_model}-{dtype}" / "policy"
    made.export(target)
    pairs = [(s.prompt_ids, s.completion_ids) for s in make_sequences(9, seed=2)]
    return {"scores": made.score(pairs, 1.0), "adapters": part(made, "adapters"), "base": part(made, "base")}


def published(stage: int) -> dict[str, Any]:
    made = learner(
        PlainSteps,
        learner={"zero_stage": stage, "micro_batch_sequences": 2},
        loss={"normalization": "local_micro_batch"},
    )
    return step(made, make_sequences(8), micro_batch_sequences=2)


def other_loss(stage: int, kind: str) -> dict[str, Any]:
    """With completions of advantage 0 in no micro-batch, and counted."""
    loss = {"kind": kind, "clip_epsilon": 0.2, "clip_epsilon_high": 0.3}
    of = learner(PlainSteps, learner={"zero_stage": stage}, loss=loss)
    useful, flat = make_sequences(9), make_sequences(3, seed=1)
    before = weights(of)
    batches = split(useful, ranks, micro_batch_tokens=64)[rank]
    metrics = of.train_step(batches, tokens(useful + flat), 1, tokens(flat), len(flat))
    after = weights(of)
    return {"metrics": metrics, "gradient": {name: before[name] - after[name] for name in after}}


def entropy(stage: int, dtype: str) -> dict[str, Any]:
    """A step whose loss has the entropy of the policy, of every second completion nothing else."""
    changes = {"model": {"dtype": dtype}, "loss": {"entropy_weight": 1.0}}
    made = learner(PlainSteps, learner={"zero_stage": stage, "micro_batch_tokens": 64}, **changes)
    sequences = [replace(s, advantage=s.advantage * (i % 2)) for i, s in enumerate(make_sequences(9))]
    return step(made, sequences, micro_batch_tokens=64)


def recorded(stage: int, dtype: str) -> dict[str, Any]:
    """What the record gets of a step, and its metrics, for several losses."""
    found = {}
    for name, loss in RECORDED_LOSSES.items():
        changes = {"model": {"dtype": dtype}, "loss": loss}
        made = learner(PlainSteps, learner={"zero_stage": stage, "micro_batch_tokens": 64}, **changes)
        sequences = make_turns(9)
        batches = split(sequences, ranks, micro_batch_tokens=64)[rank]
        metrics = made.train_step(batches, tokens(sequences), 1)
        found[name] = {"metrics": metrics, "scored": list(zip(batches, made.token_logprobs(), strict=True))}
        assert made.token_logprobs() == [], "each step's are sent once"
    return found


def listens(stage: int) -> set[str]:
    """Addresses that the process listens on."""
    learner(LearnerRank, learner={"zero_stage": stage})
    connections = psutil.Process().net_connections("tcp")
    return {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}


def clipping(stage: int) -> dict[str, Any]:
    made = learner(PlainSteps, learner={"zero_stage": stage, "max_grad_norm": 0.01, "learning_rate": 0.5})
    return step(made, make_sequences(9), micro_batch_tokens=64)


def not_finite(stage: int, optimizer: str = "adamw", dtype: str = "float32") -> dict[str, Any]:
    made = learner(LearnerRank, learner={"zero_stage": stage, "optimizer": optimizer}, model={"dtype": dtype})
    sequences = make_sequences(9)
    sequences[4] = replace(sequences[4], advantage=1e39)  # infinite in float32
    before, message = weights(made), ""
    try:
        made.train_step(split(sequences, ranks, micro_batch_tokens=64)[rank], tokens(sequences), 1)
    except RunError as error:
        message = str(error)
    return {"message": message, "before": before, "after": weights(made)}


def without_spread(stage: int) -> dict[str, Any]:
    """A step with completions of advantage 0, all of them in the micro-batches, and with those left out."""
    flat = {i: replace(s, advantage=0.0) for i, s in enumerate(make_sequences(9)) if i % 3}
    sequences = [flat.get(i, s) for i, s in enumerate(make_sequences(9))]
    useful = [s for s in sequences if s.advantage != 0]
    everything = step(learner(PlainSteps, learner={"zero_stage": stage}), sequences, micro_batch_tokens=64)
    fewer = learner(PlainSteps, learner={"zero_stage": stage})
    before = weights(fewer)
    left_out = tokens(sequences) - tokens(useful)
    fewer.train_step(split(useful, ranks, micro_batch_tokens=64)[rank], tokens(sequences), 1, left_out)
    after = weights(fewer)
    nothing = fewer.train_step(split([], ranks, micro_batch_tokens=64)[rank], 50, 2, 50)
    nobody = fewer.train_step(split([], ranks, micro_batch_tokens=64)[rank], 0, 3)
    return {
        "everything": everything["gradient"],
        "fewer": {name: before[name] - after[name] for name in after},
        "nothing": nothing,
        "nobody": nobody,
        "unmoved": all(torch.equal(after[name], tensor) for name, tensor in weights(fewer).items()),
    }


def wrong_count(stage: int) -> dict[str, Any]:
    made = learner(LearnerRank, learner={"zero_stage": stage})
    try:
        made.train_step(split(make_sequences(9), ranks, micro_batch_tokens=64)[rank], 5, 1)
    except RunError as error:
        return {"message": str(error)}
    return {"message": ""}


def low_precision(stage: int) -> dict[str, Any]:
    """One sequence, then 16 copies of it, one per micro-batch: the same mean gradient if the sum loses nothing."""
    made = {}
    for copies in (ranks, 16):
        of = learner(PlainSteps, model={"dtype": "bfloat16"}, learner={"zero_stage": stage, "micro_batch_tokens": 40})
        share: list[MicroBatch] = split(make_sequences(2)[1:], 1, micro_batch_tokens=40)[0] * (copies // ranks)
        before = weights(of)
        of.train_step(share, copies * int(share[0].completion_tokens), 1)
        made[copies] = {name: before[name] - tensor for name, tensor in weights(of).items()}
    return {"one": made[ranks], "many": made[16]}


class SmallParts(LearnerRank):
    """Under ZeRO-3 several parts with optimizer state of their own, as a model of billions of parameters has."""

    def deepspeed_settings(self) -> dict[str, Any]:
        config = super().deepspeed_settings()
        config["zero_optimization"]["sub_group_size"] = 1_000 if self.config.learner.lora.rank else 20_000
        return config


def resumable(stage: int, dtype: str, optimizer: str = "adamw", **more: Any) -> LearnerRank:
    optimizer, adapters, _ = optimizer.partition("_lora")
    settings = {"zero_stage": stage, "learning_rate": 1e-2, "schedule": "cosine", "optimizer": optimizer, **more}
    settings["lora"] = {"rank": 4 if adapters else 0}
    return learner(SmallParts, learner=settings, model={"dtype": dtype})


def steps(of: LearnerRank, numbers: range) -> list[dict[str, float]]:
    made = {n: make_sequences(9, seed=n) for n in numbers}
    return [of.train_step(split(made[n], ranks, micro_batch_tokens=64)[rank], tokens(made[n]), n) for n in numbers]


def moments(of: LearnerRank) -> list[dict[str, torch.Tensor]]:
    """What the optimizer keeps of each part of this rank's."""
    return [copy.deepcopy(dict(state)) for state in of.engine.optimizer.optimizer.state.values()]


def resume(stage: int, dtype: str = "float32", optimizer: str = "adamw") -> dict[str, Any]:
    """Four steps without a break, and two, a checkpoint, a new engine, and two more."""
    target = folder / f"checkpoint-{stage}-{dtype}-{optimizer}"
    unbroken = resumable(stage, dtype, optimizer)
    steps(unbroken, range(1, 3))
    saved, kept = weights(unbroken), moments(unbroken)
    unbroken.save(target)
    drawn = [torch.rand(3), np.random.rand(3), random.random()]
    expected = steps(unbroken, range(3, 5))
    resumed = resumable(stage, dtype, optimizer)
    resumed.load(target)
    loaded = moments(resumed)
    again = [torch.rand(3), np.random.rand(3), random.random()]
    got = steps(resumed, range(3, 5))
    return {
        "unbroken": weights(unbroken), "resumed": weights(resumed), "expected": expected, "got": got,
        "drawn": drawn, "again": again, "saved": saved, "kept": kept, "loaded": loaded,
    }  # fmt: skip


def updates(stage: int, dtype: str) -> dict[str, Any]:
    """Weights before the first update and after each."""
    settings = {"zero_stage": stage, "updates_per_batch": UPDATES, "learning_rate": 0.1}
    made = learner(PlainSteps, learner=settings, model={"dtype": dtype})
    seen, take = [weights(made)], made.train_step

    def watched(*arguments: Any) -> dict[str, float]:
        metrics = take(*arguments)
        seen.append(weights(made))
        return metrics

    made.train_step = watched
    return {"metrics": asyncio.run(train(learner_group(lambda: made), range(1, STEPS + 1))), "weights": seen}


def lost_between_updates(stage: int, dtype: str, teacher: str = "") -> dict[str, Any]:
    """All steps without a break, and with a loss after the first update of the last one; a checkpoint is of step 1."""
    taught = {"kind": "distill", "teacher": {"path": str(folder.parent / "models" / teacher)}} if teacher else {}
    settings = {"zero_stage": stage, "updates_per_batch": UPDATES, "learning_rate": 1e-2, "schedule": "cosine"}

    def new() -> LearnerRank:
        return learner(SmallParts, learner=settings, model={"dtype": dtype}, loss=taught)

    saved, unbroken = folder / f"updates-{stage}-{dtype}-{teacher}", new()

    async def whole() -> list[dict[str, float]]:
        of = learner_group(lambda: unbroken)
        first = await train(of, range(1, 2))
        await of.save(saved)
        return first + await train(of, range(2, STEPS + 1))

    ranks_of_group: list[LearnerRank] = []

    def remembered() -> LearnerRank:
        ranks_of_group.append(new())
        return ranks_of_group[-1]

    async def broken() -> list[dict[str, float]]:
        of = learner_group(remembered, saved)
        die_before(ranks_of_group[0], STEPS * UPDATES)
        return await train(of, range(1, STEPS + 1))

    expected = asyncio.run(whole())
    got = asyncio.run(broken())
    return {
        "expected": expected, "got": got, "unbroken": weights(unbroken), "rebuilt": weights(ranks_of_group[-1]),
        "lost": weights(ranks_of_group[0]),
    }  # fmt: skip


def other_ranks(saved_by: int, stage: int, dtype: str, optimizer: str = "adamw") -> dict[str, Any]:
    """The last two of `resume`'s four steps, from what another number of ranks saved; the very last once more."""
    saved = folder.parent / str(saved_by) / f"checkpoint-{stage}-{dtype}-{optimizer}"
    case = ",".join(("resume", str(stage), dtype, *([optimizer] if optimizer != "adamw" else [])))
    done = [saved.with_name(f"{case}.{other}.pt") for other in range(saved_by)]
    while not all(path.exists() for path in done):
        time.sleep(0.1)
    if rank == 0:  # as a kill in the middle of a conversion may have left it
        leftover = saved.with_name(f"{saved.name}.universal.tmp") / "state/tmp/model.model.norm.weight/0"
        leftover.mkdir(parents=True)
        torch.save(torch.ones(64), leftover / "fp32.07")
    made = resumable(stage, dtype, optimizer)
    made.load(saved)
    loaded, kept = weights(made), moments(made)
    first = steps(made, range(3, 4))
    made.save(folder / f"saved-again-{saved_by}-{stage}-{dtype}-{optimizer}")
    last = steps(made, range(4, 5))
    again = resumable(stage, dtype, optimizer)
    again.load(folder / f"saved-again-{saved_by}-{stage}-{dtype}-{optimizer}")
    return {
        "loaded": loaded, "kept": kept, "metrics": first + last, "weights": weights(made),
        "again": steps(again, range(4, 5))[0], "left": list(saved.parent.glob(f"{saved.name}.*tmp")),
    }  # fmt: skip


class Cold(LearnerRank):
    """Compiles what it needs in its first step."""

    def _warm_up(self) -> None:
        self.before = state(self)


class Warm(LearnerRank):
    """Notes what its warm-up leaves, and how long it takes."""

    def _warm_up(self) -> None:
        self.before = state(self)
        began = time.perf_counter()
        with Live() as live:
            live.leave_out(held for held in gc.get_objects() if isinstance(held, torch.Tensor))
            super()._warm_up()
        self.seconds = time.perf_counter() - began
        gc.collect()
        self.left_bytes = live.bytes
        self.after = state(self)


def state(of: LearnerRank) -> dict[str, Any]:
    optimizer = copy.deepcopy(of.engine.optimizer.optimizer.state_dict())
    return {"weights": weights(of), "optimizer": optimizer, "random": random_states()}


def warm_up(stage: int, dtype: str, kl_beta: float | str, optimizer: str = "adamw") -> dict[str, Any]:
    """Two steps after a warm-up, and two without one."""

    def start(kind: type[LearnerRank]) -> Any:
        settings = {"zero_stage": stage, "learning_rate": 1e-2, "micro_batch_tokens": 64, "optimizer": optimizer}
        return learner(kind, learner=settings, model={"dtype": dtype}, loss={"kl_beta": float(kl_beta)})

    warm, cold = start(Warm), start(Cold)
    two = {
        name: {"metrics": steps(of, range(1, 3)), "weights": weights(of)}
        for name, of in (("warm", warm), ("cold", cold))
    }
    left = warm.left_bytes / sum(math.prod(spec.shape) for spec in warm.parameter_specs())
    return {"before": warm.before, "after": warm.after, "seconds": warm.seconds, "left": left} | two


def use(stage: int, start_model: str, dtype: str) -> dict[str, Any]:
    """Scores, buckets, metadata and export of a model that has been trained for a step."""
    made = learner(
        LearnerRank,
        start_model,
        learner={"zero_stage": stage, "learning_rate": 1e-2, "micro_batch_tokens": 64},
        model={"dtype": dtype},
    )
    step(made, make_sequences(9), micro_batch_tokens=64)
    pairs = [(s.prompt_ids, s.completion_ids) for s in make_sequences(9, seed=2)]
    target = folder / f"export-{stage}-{start_model}-{dtype}"
    made.export(target)
    buckets = [
        [(spec.name, tensor.clone()) for spec, tensor in zip(bucket.parameters, tensors, strict=True)]
        for bucket, tensors in made.full_parameters(40_000)
    ]
    scores = {temperature: made.score(pairs, temperature) for temperature in (1.0, 0.7)}
    after = step(made, make_sequences(9), 2, micro_batch_tokens=64)  # scoring must not break what follows
    return {
        "metadata": [(s.name, s.dtype, s.shape) for s in made.parameter_specs()],
        "buckets": buckets,
        "scores": scores,
        "metrics": after["metrics"],
    }


def memory(stage: int, dtype: str, optimizer: str = "adamw") -> dict[str, Any]:
    """The peak of each phase, and bytes at rest, once the optimizer has its state."""
    peaks: dict[str, Any] = {}
    with Live() as live:
        optimizer, adapters, _ = optimizer.partition("_lora")
        settings = {"zero_stage": stage, "optimizer": optimizer, "micro_batch_tokens": 64}
        settings["lora"] = {"rank": 16 if adapters else 0}
        made = learner(SmallBuckets, "wide", learner=settings, model={"dtype": dtype})
        optimizer_step = made.engine.step

        def watched_step() -> None:
            peaks["in the backward pass"] = live.restart()
            optimizer_step()
            peaks["in the optimizer step"] = live.restart()

        made.engine.step = watched_step
        for number in (1, 2):
            live.restart()
            made.train_step(
                split(make_sequences(9), ranks, micro_batch_tokens=64)[rank], tokens(make_sequences(9)), number
            )
        at_rest = live.bytes
        live.restart()
        for base in (bool(adapters), False):
            made.will_send(base)
            for _ in made._outgoing():
                pass
        peaks["in a push"] = live.restart()
        made.score([(s.prompt_ids, s.completion_ids) for s in make_sequences(4)], 1.0)
        peaks["in the probe"] = live.restart()
        made._copied = lambda tensor: tensor[:0].clone()  # into the host's memory, which is not a CPU rank's device
        made._on_cpu("policy")
        peaks["in a checkpoint"] = live.restart()
    tensors = [value for state in moments(made) for value in state.values() if isinstance(value, torch.Tensor)]
    optimizer_bytes = sum(tensor.nbytes for tensor in tensors)
    return {"peaks": peaks, "at_rest": at_rest, "config": made.config, "optimizer": optimizer_bytes}


class Recorded(SmallParts):
    """Notes each part's weights and gradient of each step, as the optimizer is given them."""

    def make_optimizer(self, policy: Policy) -> torch.optim.Optimizer:
        made = super().make_optimizer(policy)
        self.seen: list[dict[str, Any]] = []
        update = made.step

        def step() -> None:
            (part,) = (p for group in made.param_groups for p in group["params"] if p.grad is not None)
            seen = {"part": id(part), "before": part.detach().clone(), "gradient": part.grad.clone()}
            update()
            self.seen.append(seen | {"after": part.detach().clone(), "state": copy.deepcopy(dict(made.state[part]))})

        made.step = step  # type: ignore[method-assign]
        return made


def update(stage: int, dtype: str, optimizer: str) -> list[list[dict[str, Any]]]:
    """Three steps of each part, as the optimizer saw them."""
    settings = {"zero_stage": stage, "learning_rate": 1e-2, "optimizer": optimizer, "weight_decay": 0.1}
    made = learner(Recorded, learner=settings, model={"dtype": dtype})
    steps(made, range(1, 4))
    parts = dict.fromkeys(seen["part"] for seen in made.seen)
    return [[seen for seen in made.seen if seen["part"] == part] for part in parts]


def elsewhere(stage: int, dtype: str) -> dict[str, Any]:
    """Three steps with AdamW in the host's memory, with activations there, and without."""
    made = {
        "here": resumable(stage, dtype, gradient_checkpointing=True),
        "adamw_offload": resumable(stage, dtype, "adamw_offload", gradient_checkpointing=True),
        "activations": resumable(stage, dtype, offload_activations=True),
    }
    return {name: {"metrics": steps(of, range(1, 4)), "weights": weights(of)} for name, of in made.items()}


def fork(own_rank: int, all_ranks: int, own_folder: Path, names: list[str]) -> int:
    """Start a rank that runs the scenarios; its process id."""
    global rank, ranks, folder
    if process := os.fork():
        return process
    rank, ranks, folder = own_rank, all_ranks, own_folder
    log = os.open(folder / f"log.{rank}", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = 1
    try:
        for name in names:
            function, *arguments = name.split(",")
            result = globals()[function](*(int(a) if a.isdigit() else a for a in arguments))
            torch.save(result, folder / f"{name}.{rank}.pt")
        torch.distributed.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)  # all is on disk, and torch's background threads now and then abort an orderly exit


IMPORTED_LATE = (
    "peft", "deepspeed.runtime.bf16_optimizer", "deepspeed.runtime.zero.muon.muon_optimizer", "deepspeed.runtime.zero.stage3",
    "transformers.models.llama.modeling_llama", "transformers.models.qwen2.modeling_qwen2",
)  # fmt: skip


def main(root: Path, scenarios: dict[str, list[str]]) -> int:
    """All ranks at once; with the first that fails, the others are killed."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    for module in IMPORTED_LATE:
        importlib.import_module(module)
    gc.freeze()  # DeepSpeed collects garbage several times for every engine
    running = {
        fork(n, int(count), root / count, names) for count, names in scenarios.items() for n in range(int(count))
    }
    while running:
        ended, status = os.wait()
        running.remove(ended)
        if status:
            for other in running:
                os.kill(other, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
