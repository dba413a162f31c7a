"""One rank of the learner: a DeepSpeed ZeRO engine around the policy, the frozen reference, and a sender for pushes.

Ranks wait for each other: every call goes to ALL of them with the same arguments.

Invariants:
- The gradient is that of the whole step's loss for any number of ranks and micro-batches: losses are multiplied by the number
  of ranks, over which DeepSpeed averages; its division by accumulation steps is off.
- Gradients are summed and sent in float32; master weights and optimizer state are float32.
- A gradient that is not finite ends the run; DeepSpeed would skip the step.
"""

import copy
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from jaxtyping import Float32, Int32

from actors.cluster.processes import Processes, own_processes
from actors.learner.optimizer import deepspeed_settings, forget, optimizer
from actors.learner.state import load_state, save_state
from actors.learner.teacher import UNTAUGHT, FrozenTeacher, Taught
from actors.weights.transport import Outgoing, PushGroup, Sender, find
from openrs_ray.algorithm.advantages import TrainingSequence
from openrs_ray.algorithm.host_memory import FrozenOnHost, activations_on_host
from openrs_ray.algorithm.losses import METRICS, LossInput, policy_loss
from openrs_ray.algorithm.packing import MicroBatch, pack
from openrs_ray.algorithm.policy import Policy, adapt, fuse_kernels, load_policy, micro_batch_arguments
from openrs_ray.algorithm.schedule import learning_rate
from openrs_ray.cluster.learner_memory import SCORED_AT_ONCE
from openrs_ray.cluster.memory import needs_checkpointing
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.common.formatting import GIB
from openrs_ray.common.private_folder import private_folder
from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import RunError
from openrs_ray.models.lora import adapted_layers, without_adapters, write_adapter
from openrs_ray.models.pretrained import fixed_weights
from openrs_ray.records import TokenLogprobs
from openrs_ray.run.checkpoint_files import ADAPTER
from openrs_ray.run.kept_policy import kept_policy
from openrs_ray.run.spans import span, traced
from openrs_ray.run.step_settings import StepSettings
from openrs_ray.weights.adapters import pairs
from openrs_ray.weights.buckets import Bucket, ParameterSpec, plan_buckets
from openrs_ray.weights.meeting import LOOPBACK, Meeting, new_token, prove_ranks
from openrs_ray.weights.sources import Part, sources


class LearnerRank:
    """Example (one rank, CPU):

    rank = LearnerRank(config, "/models/toy", rank=0, world_size=1, device="cpu")
    rank.start(*rank.address())
    metrics = rank.train_step(micro_batches, global_tokens=512, step=1)
    """

    def __init__(self, config: RunConfig, model_path: str, rank: int, world_size: int, device: str) -> None:
        self.config = config
        self.model_path = model_path
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)
        self.reference: Policy | FrozenOnHost | None = None
        self.teacher: FrozenTeacher | None = None
        self._reference_step = 0  # its step; 0: the start model
        self._forgot_before = 0  # step that the optimizer has last begun anew for
        self._scored: list[TokenLogprobs] = []
        self._sender: Sender | None = None
        self._sending: Part | None = None

    # ------------------------------------------------------------------------------------------------ life cycle

    def processes(self) -> Processes:
        return own_processes()

    def sees(self, file: str) -> bool:
        return Path(file).exists()

    def address(self) -> tuple[str, str]:
        """Rendezvous file, in a private folder, and token of the ranks, all on one node."""
        # A file, since torch's store would listen on every address of the machine.
        return str(private_folder() / f"ranks-{new_token()[:8]}"), new_token()

    def start(self, place: str, token: str) -> None:
        """Load the start model and build the DeepSpeed engine."""
        on_cpu = self.device.type == "cpu"
        local_rank = 0 if on_cpu else self.device.index or 0
        os.environ.update(
            DS_ACCELERATOR="cpu" if on_cpu else "cuda",
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK=str(local_rank),
            LOCAL_SIZE=str(self.world_size),
            GLOO_SOCKET_IFNAME="lo",
        )
        if (
            on_cpu or self.config.learner.optimizer == "adamw_offload"
        ):  # an offloaded optimizer computes on the host's CPUs
            torch.set_num_threads(self.config.threads)
        import deepspeed

        if on_cpu:
            # Used for inference only, yet compiled from C++ at the first start (25 s, and an error without a compiler).
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.utils.logger.setLevel("WARNING")
        learner, model = self.config.learner, self.config.model
        policy = load_policy(self.model_path, model.dtype, learner.logprob_chunk_tokens, learner.head_dtype)
        if learner.fused_kernels and not on_cpu:
            fuse_kernels(policy)
        if learner.lora.rank:
            self._adapter_config = adapt(policy, learner.lora, self.config.run.seed)
            deepspeed.utils.set_z3_leaf_modules(policy, {type(layer) for layer in adapted_layers(policy).values()})
            if learner.zero_stage == 3:  # it releases a layer too early when the layer's input needs no gradient
                policy.model.enable_input_require_grads()
        elif self.config.needs_reference:
            self.reference = self._frozen_copy(policy)
        if self.config.loss.kind == "distill":
            self.teacher = FrozenTeacher(self.config, self.device)
        if self._checkpoints(policy):
            policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        deepspeed.init_distributed(
            init_method=f"file://{place}",
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=learner.deadline_s),
            auto_mpi_discovery=False,
            verbose=False,
        )
        if on_cpu:  # NCCL's members know each other already, by a random number out of that file
            prove_ranks(token, self.rank, self.world_size, torch.distributed.all_to_all_single)
        self.policy = policy
        self.engine, *_ = deepspeed.initialize(
            model=policy, optimizer=self.make_optimizer(policy), config=self.deepspeed_settings()
        )
        self._warm_up()

    def _frozen_copy(self, policy: Policy) -> Policy | FrozenOnHost:
        # Moved to the device before copying: all ranks of a node do this at once, and two copies each might not fit the host.
        return self._frozen(copy.deepcopy(policy.to(self.device)))

    def _frozen(self, policy: Policy) -> Policy | FrozenOnHost:
        frozen = policy.to(self.device).eval().requires_grad_(False)
        return FrozenOnHost(frozen, self.device) if self.config.learner.offload_reference else frozen

    def _warm_up(self) -> None:
        """Run forward, backward and score once: kernels compile and ranks connect before the first short deadline.

        To DeepSpeed it is a micro-batch of the first step, with weight 0.
        """
        ids = np.zeros(16, dtype=np.int32)
        batch = pack([TrainingSequence(ids, ids, np.zeros(16, dtype=np.float32), 1.0)] * 2)
        self.engine.set_gradient_accumulation_boundary(False)
        (reference,), (taught,) = self._reference_logprobs([batch], self.config.needs_reference), self._taught([batch])
        output = policy_loss(
            self._loss_input(batch, reference, self.config.loss.uses_entropy, taught), self.config.loss
        )
        self.engine.backward(output.total * 0.0, scale_wrt_gas=False)
        # Dropped, or the gradient would take a step's memory during the first push.
        self.engine.optimizer.zero_grad(set_to_none=True)
        # Of ZeRO-1 in float32 and ZeRO-2: else kept until a step.
        for sums in ("all_grad_tensors", "averaged_gradients"):
            getattr(self.engine.optimizer, sums, {}).clear()
        self.score([(ids, ids)], 1.0)

    def _checkpoints(self, policy: Policy) -> bool:
        if self.config.learner.offload_activations:
            return True
        if self.device.type == "cpu":
            return self.config.learner.gradient_checkpointing is True
        planned = self.config.placement.gpu_memory_gib or math.inf
        gpu_bytes = min(planned * GIB, torch.cuda.get_device_properties(self.device).total_memory)
        shape = ModelShape.of(policy.model.config)
        return needs_checkpointing(
            self.config, replace(shape, teacher=self.teacher.shape if self.teacher else None), gpu_bytes
        )

    def make_optimizer(self, policy: Policy) -> torch.optim.Optimizer:
        return optimizer(filter(attrgetter("requires_grad"), policy.parameters()), self.config.learner)

    def deepspeed_settings(self) -> dict[str, Any]:
        return deepspeed_settings(self.config, self.world_size)

    # ------------------------------------------------------------------------------------------------ training

    def train_step(
        self,
        micro_batches: Sequence[MicroBatch],
        global_tokens: int,
        step: int,
        left_out_tokens: int = 0,
        left_out_sequences: int = 0,
        settings: StepSettings | None = None,
    ) -> dict[str, float]:
        """One optimizer step on this rank's share; all ranks have the same number of micro-batches (`packing.split`).

        The loss is a mean over `global_tokens`, the whole step's completion tokens; `left_out_tokens` of them, in
        `left_out_sequences` completions, add nothing and are in no micro-batch. `settings`: None for those of the recipe.
        Returns the same metrics on every rank. RunError when the gradient is not finite.
        """
        began = time.monotonic()
        settings = settings or StepSettings.of(self.config)
        self._follow_reference(settings.reference_step, step)
        loss_config = settings.loss(self.config.loss)
        rate = learning_rate(step, self.config.run.steps, self.config.learner) * settings.learning_rate_factor
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate
        real = [batch for batch in micro_batches if batch.completion_tokens]
        counts = self._sum_over_ranks(torch.tensor([len(real), sum(len(batch.lengths) for batch in real)])).tolist()
        weigh = self._loss_weights(micro_batches, global_tokens, counts[1] + left_out_sequences, counts[0])
        packed_tokens = sum(batch.computed_tokens for batch in real)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        sums = dict.fromkeys(METRICS, torch.zeros_like(loss))
        references = self._reference_logprobs(micro_batches, loss_config.kl_beta > 0, step)
        taught = self._taught(micro_batches)
        self._scored = []
        for i, (batch, reference, lesson, weight) in enumerate(
            zip(micro_batches, references, taught, weigh, strict=True)
        ):
            with span("forward_backward", step=step, micro_batch=i, tokens=batch.computed_tokens):
                self.engine.set_gradient_accumulation_boundary(i == len(micro_batches) - 1)
                tokens = self._loss_input(batch, reference, loss_config.entropy_weight > 0, lesson)
                output = policy_loss(tokens, loss_config)
                self.engine.backward(output.total * (weight * self.world_size), scale_wrt_gas=False)
                self._finish_kernels()
            self._scored.append(_kept(tokens))
            sums = {name: value + output.sums[name] for name, value in sums.items()}
            loss += output.total.detach().double() * weight
        with span("optimizer", step=step):
            self.engine.step()
            self._finish_kernels()
        if not self.engine.was_step_applied():
            raise RunError(
                f"Learner rank {self.rank}: the gradient of step {step} is not finite; this update changed no weight."
            )
        named = {**sums, "packed_tokens": torch.full_like(loss, packed_tokens), "loss": loss}
        total = self._sum_over_ranks(torch.stack([*named.values()])).tolist()
        expected, seconds = global_tokens - left_out_tokens, time.monotonic() - began
        return self._metrics(dict(zip(named, total, strict=True)), expected, rate, seconds)

    def token_logprobs(self) -> list[TokenLogprobs]:
        """Log-probabilities of the newest `train_step`, by micro-batch; once."""
        scored, self._scored = self._scored, []
        return scored

    def _follow_reference(self, reference_step: int, step: int) -> None:
        """Load the step's reference where it is another one; the first step with it begins with a new optimizer.

        As in ProRL (arXiv 2505.24864), where a reset of the reference resets the optimizer, too. Both follow from the settings of
        the step alone, so that a learner that is rebuilt or resumed does the same.
        """
        if reference_step != self._reference_step:
            self.reference = None  # first, or two would be held
            self.reference = self._frozen(self._policy_of(reference_step))
            self._reference_step = reference_step
        if reference_step and step == reference_step + 1 != self._forgot_before:
            forget(self.engine.optimizer.optimizer)
            self._forgot_before = step

    def _policy_of(self, step: int) -> Policy:
        """The policy of a kept checkpoint, or the start model. RunError when it is not there."""
        learner = self.config.learner
        path = self.model_path if step == 0 else str(kept_policy(self.config.run.path, step))
        policy = load_policy(path, self.config.model.dtype, learner.logprob_chunk_tokens, learner.head_dtype)
        if learner.fused_kernels and self.device.type != "cpu":
            fuse_kernels(policy)
        return policy

    def _finish_kernels(self) -> None:
        """A span must not end before its kernels do."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _loss_weights(
        self, micro_batches: Sequence[MicroBatch], global_tokens: int, global_sequences: int, real: int
    ) -> list[float]:
        """Factor for each micro-batch's summed loss.

        tokens: 1 / completion tokens. sequences: 1 / completions (the loss has divided each by its length). constant:
        1 / (completions x longest allowed). local_micro_batch: 1 / (own tokens x micro-batches), the published mean of means.
        """
        normalization = self.config.loss.normalization
        if normalization == "local_micro_batch":
            return [1.0 / (max(batch.completion_tokens, 1) * max(real, 1)) for batch in micro_batches]
        allowed = global_sequences * self.config.rollout.max_completion_tokens
        whole = {"tokens": global_tokens, "sequences": global_sequences, "constant": allowed}[normalization]
        return [1.0 / max(whole, 1)] * len(micro_batches)  # 0 where truncated completions are left out, and all are

    @torch.no_grad()
    def _reference_logprobs(
        self, micro_batches: Sequence[MicroBatch], wanted: bool, step: int = 0
    ) -> list[torch.Tensor | None]:
        """Log-probabilities under the start model, for all micro-batches at once: afterwards it may leave the device."""
        if not wanted:
            return [None] * len(micro_batches)
        with (
            span("reference", step=step, micro_batches=len(micro_batches)),
            self._start_model() as reference,
        ):
            scored = [reference(**self._arguments(batch, self._temperature(batch))) for batch in micro_batches]
            self._finish_kernels()
        return scored

    @contextmanager
    def _start_model(self) -> Iterator[Any]:
        """The start model: a frozen copy, or the policy without its adapters. RunError where there is neither."""
        if self.reference is None:
            if not self.config.learner.lora.rank:
                raise RunError(f"Learner rank {self.rank}: a KL penalty needs a reference model, and none is loaded.")
            with without_adapters(self.policy.model):
                yield self.engine
        elif isinstance(self.reference, FrozenOnHost):
            with self.reference.visit() as reference:
                yield reference
        else:
            yield self.reference

    def _taught(self, micro_batches: Sequence[MicroBatch]) -> Iterator[Taught]:
        """The teacher's part of each micro-batch, in order; empty ones without a teacher."""
        if self.teacher is None:
            return iter([UNTAUGHT] * len(micro_batches))
        return self.teacher.scored(micro_batches, self._temperature)

    def _loss_input(
        self,
        batch: MicroBatch,
        reference_logprobs: torch.Tensor | None,
        with_entropies: bool = False,
        taught: Taught = UNTAUGHT,
    ) -> LossInput:
        arguments = self._arguments(batch, self._temperature(batch))
        entropies = divergence = top_share = None
        with self._activations():
            if taught.view is not None:
                top_k = self.config.loss.teacher.top_k
                logprobs, divergence, top_share = self.engine(**arguments, teacher=taught.view, top_k=top_k)
            elif with_entropies:
                logprobs, entropies = self.engine(**arguments, entropies=True)
            else:
                logprobs = self.engine(**arguments)
        return LossInput(
            logprobs=logprobs,
            behaviour_logprobs=torch.from_numpy(batch.behaviour_logprobs).to(self.device),
            advantages=torch.from_numpy(batch.advantages).to(self.device),
            lengths=batch.completion_lengths,
            reference_logprobs=reference_logprobs,
            entropies=entropies,
            teacher_logprobs=taught.logprobs,
            divergence=divergence,
            top_share=top_share,
        )

    def _temperature(self, batch: MicroBatch) -> float:
        """Divisor of the logits: that at which the batch was sampled, as the sampler's log-probabilities are."""
        return self.config.logprob_temperature if batch.temperature is None else batch.temperature

    def _activations(self) -> AbstractContextManager[None]:
        if not self.config.learner.offload_activations:
            return nullcontext()
        return activations_on_host(self.policy.model.config.get_text_config().hidden_size)

    def _arguments(self, batch: MicroBatch, temperature: float) -> dict[str, Any]:
        return {**micro_batch_arguments(batch, self.device), "temperature": temperature}

    def _metrics(
        self, total: Mapping[str, float], expected_tokens: int, rate: float, seconds: float
    ) -> dict[str, float]:
        """`total`: sums over all ranks, by name."""
        tokens = total["tokens"]
        if tokens != expected_tokens:
            raise RunError(f"Learner: the ranks trained on {tokens:.0f} tokens, but the step has {expected_tokens}.")
        per_token = 1.0 / max(tokens, 1.0)
        return {
            "loss": total["loss"],
            "grad_norm": float(self.engine.get_global_grad_norm()),
            "learning_rate": rate,
            "clipped_share": total["clipped"] * per_token,
            **{name: total[name] * per_token for name in ("kl", "mismatch_kl", "entropy", "ratio")},
            "effective_sample_share": total["ratio"] ** 2 * per_token / (total["ratio_squared"] or 1.0),
            "truncated_weight_share": total["truncated"] * per_token,
            "masked_token_share": total["masked_tokens"] * per_token,
            "masked_sequence_share": total["masked_sequences"] / max(total["sequences"], 1.0),
            **{name: total[name] * per_token for name in self._teacher_figures},
            "completion_tokens": tokens,
            "packed_tokens": total["packed_tokens"],
            "seconds": seconds,
        }

    @property
    def _teacher_figures(self) -> tuple[str, ...]:
        if self.teacher is None:
            return ()
        return ("teacher_kl", "top_share") if self.config.loss.teacher.top_k else ("teacher_kl",)

    def _sum_over_ranks(self, values: torch.Tensor) -> torch.Tensor:
        values = values.to(self.device)
        torch.distributed.all_reduce(values)
        return values

    def release_memory(self) -> None:
        """Make room for the engine on the same GPU."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    # ------------------------------------------------------------------------------------------------ scoring

    @traced("score")
    @torch.no_grad()
    def score(
        self,
        sequences: Sequence[tuple[Int32[np.ndarray, " prompt"], Int32[np.ndarray, " completion"]]],
        temperature: float,
    ) -> list[Float32[np.ndarray, " completion"]]:
        """Log-probabilities of the completions, as in training; the same on all ranks."""
        scored: list[np.ndarray] = []
        self.policy.eval()
        with self._small_chunks():
            for run in self._consecutive(sequences):
                batch = pack(run)
                logprobs = self.engine(**self._arguments(batch, temperature)).float().cpu().numpy()
                scored += np.split(logprobs, np.cumsum([len(sequence.completion_ids) for sequence in run])[:-1])
        self.policy.train()
        return scored

    @contextmanager
    def _small_chunks(self) -> Iterator[None]:
        """Context with few logits at once: engines on the same GPU are awake."""
        head, usual = self.policy.head, self.policy.head.chunk_tokens
        head.chunk_tokens = min(usual, SCORED_AT_ONCE)
        try:
            yield
        finally:
            head.chunk_tokens = usual

    def _consecutive(self, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[list[TrainingSequence]]:
        run: list[TrainingSequence] = []
        for prompt, completion in sequences:
            blank = np.zeros(len(completion), dtype=np.float32)
            sequence = TrainingSequence(np.asarray(prompt), np.asarray(completion), blank, 0.0)
            if run and sum(map(len, run)) + len(sequence) > self.config.learner.micro_batch_tokens:
                yield run
                run = []
            run.append(sequence)
        if run:
            yield run

    # ------------------------------------------------------------------------------------------------ weights

    def parameter_specs(self, part: Part = "policy") -> list[ParameterSpec]:
        """Every tensor of a part of the model with its full shape, in sending order; tied ones once."""
        return [source.spec for source in sources(self.policy.model, part)]

    def full_parameters(self, bucket_bytes: int, part: Part = "policy") -> Iterator[tuple[Bucket, list[torch.Tensor]]]:
        """Buckets of full parameters; tensors are valid until the next bucket."""
        known = {source.spec.name: source for source in sources(self.policy.model, part)}
        for bucket in plan_buckets([source.spec for source in known.values()], bucket_bytes):
            members = [known[spec.name] for spec in bucket.parameters]
            with self._gathered([parameter for member in members for parameter in member.parameters]):
                tensors = [member.make() for member in members]
                yield bucket, tensors
                tensors.clear()  # the caller holds the list until the next one is made

    def _gathered(self, parameters: list[torch.nn.Parameter]) -> Any:
        if self.config.learner.zero_stage < 3:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(parameters)

    # ------------------------------------------------------------------------------------------------ pushes

    def push_buckets(self, part: Part | None = None) -> tuple[Bucket, ...]:
        """Buckets of a part of the model; by default of the part that every push sends."""
        return plan_buckets(self.parameter_specs(part or self._every_push), self.config.push.bucket_mib << 20)

    def base_buckets(self) -> tuple[Bucket, ...]:
        """Buckets of the frozen weights, which an engine needs before its first push of adapters; none without LoRA."""
        return self.push_buckets("base") if self.config.learner.lora.rank else ()

    @property
    def _every_push(self) -> Part:
        return "adapters" if self.config.learner.lora.rank else "policy"

    def will_send(self, base: bool) -> None:
        """Choose what the next transfer sends: the base, or the part that every push sends."""
        self._sending = "base" if base else self._every_push

    def _outgoing(self) -> Iterator[tuple[Bucket, list[torch.Tensor]]]:
        return self.full_parameters(self.config.push.bucket_mib << 20, self._sending or self._every_push)

    def meeting(self, node: str | None) -> Meeting:
        """A meeting with an engine on `node`: over loopback on this rank's own."""
        return Meeting.at(LOOPBACK if node == own_processes().node else ray.util.get_node_ip_address())

    def join_push(self, engine: int, group: PushGroup) -> None:
        if self._sender is None:
            largest = max(bucket.nbytes for bucket in (*self.push_buckets(), *self.base_buckets()))
            weights = Outgoing(self.rank, self.device, group.deadline_s, largest, self._outgoing)
            self._sender = find(group.transport).sender(weights)
        self._sender.join(engine, group)

    def sender(self, method: str, *arguments: Any) -> Any:
        """Call a method of the sender."""
        return getattr(self._sender, method)(*arguments)

    # ------------------------------------------------------------------------------------------------ state

    @traced("save")
    def save(self, folder: Path) -> None:
        """Write this rank's state to `folder/state`. Not atomic: the caller renames."""
        save_state(self.engine, Path(folder), self.rank, only_trained=self.config.learner.lora.rank > 0)

    @traced("load_state")
    def load(self, folder: Path) -> None:
        """Restore what `save` wrote, bit for bit; with another number of ranks, all but the random states."""
        only_trained = self.config.learner.lora.rank > 0
        load_state(self.engine, Path(folder), self.rank, self.world_size, only_trained=only_trained)

    @traced("export")
    def export(self, folder: Path) -> None:
        """Write the policy's merged weights and config.json to `folder`, and adapters to the folder `adapter` beside it."""
        weights, adapters = self._on_cpu("policy"), self._on_cpu("adapters")
        if self.rank == 0:
            self._write_model(Path(folder), weights)
            if adapters:
                layers = pairs(adapters)
                write_adapter(Path(folder).with_name(ADAPTER), self._adapter_config, self.model_path, layers)
        torch.distributed.barrier()

    def _on_cpu(self, part: Part) -> dict[str, torch.Tensor]:
        """Copies of a part's tensors in the host's memory, by name, on rank 0. Every rank must call it: they gather together.

        One tensor at a time, because engines on the same GPU are awake meanwhile.
        """
        found: dict[str, torch.Tensor] = {}
        for source in sources(self.policy.model, part):
            with self._gathered([*source.parameters]):
                if self.rank == 0:
                    found[source.spec.name] = self._copied(source.make())
        return found

    def _copied(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to("cpu", copy=True)

    def _write_model(self, folder: Path, weights: dict[str, torch.Tensor]) -> None:
        from huggingface_hub import save_torch_state_dict

        folder.mkdir(parents=True, exist_ok=True)
        fixed = {name: buffer.to("cpu") for name, buffer in fixed_weights(self.policy.model).items()}
        save_torch_state_dict({**weights, **fixed}, folder)
        self.policy.model.config.save_pretrained(folder)


def _kept(tokens: LossInput) -> TokenLogprobs:
    """Values from which the record can compute the loss again, in the host's memory."""
    reference, entropy = tokens.reference_logprobs, tokens.entropies
    return TokenLogprobs(
        policy=_on_host(tokens.logprobs),
        reference=None if reference is None else _on_host(reference),
        entropy=None if entropy is None else _on_host(entropy),
    )


def _on_host(values: torch.Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
