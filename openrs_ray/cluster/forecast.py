"""Forecast of a run by arithmetic (docs/cost.md has the assumptions)."""

import math
from dataclasses import dataclass, replace

import numpy as np

from openrs_ray.cluster.cards import Card
from openrs_ray.cluster.disk import evaluations
from openrs_ray.cluster.engine_memory import cache_bytes_per_token, engine_parts, engine_weights
from openrs_ray.cluster.learner_memory import (
    holds_reference,
    itemsize,
    kept_on_host,
    teacher_bytes,
    trained_parameters,
    waiting_bytes,
)
from openrs_ray.cluster.lengths import mean_square
from openrs_ray.cluster.memory import needs_checkpointing
from openrs_ray.cluster.model_shape import ModelShape
from openrs_ray.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Assumed:
    """Assumptions at one end of the range."""

    length: float
    """Mean length of a completion, as a share of rollout.max_completion_tokens."""
    prompt: float
    """Mean length of a prompt, as a share of rollout.max_prompt_tokens."""
    bandwidth: float
    """Share of the stated bandwidth that is reached, in a GPU's memory and over PCIe."""
    compute: float
    """Share of the stated TFLOP/s that is reached."""
    host_gb_per_s: float
    """Bandwidth of the host's memory in an offloaded optimizer step."""
    spread: float = 0.9
    """Standard deviation of the logarithm of a completion's length."""


BEST = Assumed(length=0.3, prompt=0.3, bandwidth=0.75, compute=0.4, host_gb_per_s=60)
WORST = Assumed(length=1.0, prompt=1.0, bandwidth=0.5, compute=0.25, host_gb_per_s=20)
_PASS_S = 0.002
"""Fixed seconds of an engine's pass. On an H100, 72 completions of a 1.78 B model took 4.9 ms a pass, 1.9 of them for reading."""
_GRADIENT_BYTES = 20
"""Bytes read and written per trained parameter after each micro-batch: the gradient, its bucket and its float32 sum."""
_STEP_BYTES = {"adamw": 28, "adamw_8bit": 16, "adamw_offload": 42}
"""Bytes per parameter in an optimizer step: weight, two moments, gradient; on the host also passes for clipping and copying."""


@dataclass(frozen=True, slots=True)
class Forecast:
    step_s: float
    hours: float
    """With evaluations, without start and checkpoints."""
    sampling_s: float
    """Seconds of sampling a step's completions alone."""
    learning_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run under assumptions, with speeds and lengths that follow from them."""

    config: RunConfig
    shape: ModelShape
    card: Card
    gpu_bytes: float | None
    assumed: Assumed

    @property
    def read_per_s(self) -> float:
        """Bytes a second from a GPU's memory."""
        return self.assumed.bandwidth * self.card.gb_per_s * 1e9

    @property
    def sent_per_s(self) -> float:
        """Bytes a second between a GPU and the host's memory."""
        return self.assumed.bandwidth * self.card.pcie_gb_per_s * 1e9

    @property
    def computed_per_s(self) -> float:
        return self.assumed.compute * self.card.tflops * 1e12

    @property
    def prompt(self) -> float:
        """Tokens."""
        return self.assumed.prompt * self.config.rollout.max_prompt_tokens

    @property
    def length(self) -> float:
        """Mean tokens of a completion."""
        return self.assumed.length * self.config.rollout.max_completion_tokens

    @property
    def seen(self) -> float:
        """Mean number of tokens that precede a token of a completion."""
        square = mean_square(self.assumed.length, self.assumed.spread) * self.config.rollout.max_completion_tokens**2
        return self.prompt + square / self.length / 2


def forecast(config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, held_out: int) -> list[Forecast]:
    """The best and the worst end of the range."""
    return [forecast_under(assumed, config, shape, gpu, gpu_bytes, held_out) for assumed in (BEST, WORST)]


def forecast_under(
    assumed: Assumed, config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, held_out: int
) -> Forecast:
    if config.rollout.stages:
        return _over_stages(assumed, config, shape, gpu, gpu_bytes, held_out)
    run = Run(config, shape, gpu, gpu_bytes, assumed)
    sampled, learned = sampling_s(run, config.completions_per_step), learning_s(run)
    ahead = config.rollout.staleness > 0 and not config.placement.colocated
    step = _ahead_s(run, sampled, learned) if ahead else sampled + learned
    return Forecast(step, (config.run.steps * step + _evaluated_s(run, held_out)) / 3600, sampled, learned)


def _over_stages(
    assumed: Assumed, config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None, held_out: int
) -> Forecast:
    """Mean step over the stages as planned; evaluations are at full length."""
    steps, each = zip(*of_stages(assumed, config, shape, gpu, gpu_bytes), strict=True)

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=steps))

    step = mean([one.step_s for one in each])
    evaluated = _evaluated_s(Run(config, shape, gpu, gpu_bytes, assumed), held_out)
    sampled, learned = mean([one.sampling_s for one in each]), mean([one.learning_s for one in each])
    return Forecast(step, (config.run.steps * step + evaluated) / 3600, sampled, learned)


def of_stages(
    assumed: Assumed, config: RunConfig, shape: ModelShape, gpu: Card, gpu_bytes: float | None
) -> list[tuple[int, Forecast]]:
    """Planned steps of each of `rollout.stages`, and the forecast of a run that is all in it, without evaluations."""
    ends = config.rollout.planned_ends(config.run.steps)
    found = [
        forecast_under(assumed, config.in_stage(number), shape, gpu, gpu_bytes, held_out=0)
        for number in range(len(ends))
    ]
    return [(end - begun, one) for end, begun, one in zip(ends, [0, *ends], found, strict=False)]


def _evaluated_s(run: Run, held_out: int) -> float:
    """Seconds of all evaluations of a run."""
    asked = held_out * run.config.evaluation.samples
    return evaluations(run.config) * sampling_s(replace(run, config=run.config.as_evaluated), asked) if asked else 0.0


def sampling_s(run: Run, completions: int) -> float:
    """Seconds to sample completions on all engines; the longest completion reaches the limit."""
    each = math.ceil(completions / run.config.num_engines)
    passes = max(run.config.rollout.max_completion_tokens, each * run.length / _at_once(run, each))
    return _engine_s(run, passes, each)


def _at_once(run: Run, asked: float) -> float:
    """Completions that an engine works on at once, of `asked` ones."""
    config = run.config
    _, room = engine_parts(config, run.shape, run.gpu_bytes, config.max_sequence_tokens)
    groups = config.rollout.in_flight
    most = groups * config.rollout.completions_per_problem / config.num_engines if groups else asked
    return max(1.0, min(asked, most, config.engine.max_sequences, room or asked))


def _engine_s(run: Run, passes: float, completions: float) -> float:
    """Seconds of an engine. Every pass reads all weights, and every token the keys and values of those before it."""
    config, split = run.config, run.config.engine.tensor_parallel
    weights = passes * engine_weights(config, run.shape) / split
    cache = completions * run.length * run.seen * cache_bytes_per_token(config, run.shape)
    computed = 2 * run.shape.parameters * completions * (run.prompt + run.length) / split
    return max((weights + cache) / run.read_per_s + passes * _PASS_S, computed / run.computed_per_s)


def _ahead_s(run: Run, sampled: float, learned: float) -> float:
    """Seconds of a step when sampling runs k versions ahead of the learner.

    A step's completions begin when a version is pushed and must have ended when that step begins to learn, k + 1 steps less one
    step's learning later. The step's time also determines how many passes an engine makes in it; it is found by bisection.
    """
    ahead = run.config.rollout.staleness + 1
    each = math.ceil(run.config.completions_per_step / run.config.num_engines)
    most = each * run.length / _at_once(run, ahead * each)
    low, high = learned, sampled + learned
    for _ in range(50):
        step = (low + high) / 2
        longest = run.config.rollout.max_completion_tokens * step / (ahead * step - learned)
        low, high = (step, high) if _engine_s(run, max(longest, most), each) > step else (low, step)
    return high


def learning_s(run: Run) -> float:
    """Seconds that the learner works in a step."""
    config, ranks = run.config, run.config.placement.num_learner_gpus
    tokens = config.completions_per_step * (run.prompt + run.length)
    computed = tokens * operations_per_token(run) / ranks / run.computed_per_s
    trained = trained_parameters(config, run.shape)
    batches = math.ceil(tokens / ranks / config.micro_batch_tokens)
    moved = batches * (_GRADIENT_BYTES * trained + _merged_bytes(run)) / run.read_per_s
    return computed + moved + config.learner.updates_per_batch * _update_s(run, trained) + _sent_s(run, tokens)


def operations_per_token(run: Run) -> float:
    """Floating-point operations of the learner per token.

    Per weight 2 forward, 2 for the gradient of the input and 2 for its own. Attention, which grows with length, comes on top.
    """
    config, shape = run.config, run.shape
    adapters, recomputed = shape.adapters(config.learner.lora), needs_checkpointing(config, shape, run.gpu_bytes)
    attention = 4 * shape.layers * shape.heads * shape.head_dim * run.seen
    forward = 2 * shape.parameters + attention
    own = 0 if adapters else 2 * shape.parameters
    frozen = (forward if config.loss.kl_beta > 0 else 0.0) + _teacher_operations(run)
    backward = 2 * shape.parameters + 2 * attention + own
    return forward * (1 + recomputed) + backward + frozen + (6 + 2 * recomputed) * adapters


def _teacher_operations(run: Run) -> float:
    """Floating-point operations of the teacher per token; 0 without one."""
    teacher = run.shape.teacher
    if teacher is None:
        return 0.0
    return 2 * teacher.parameters + 4 * teacher.layers * teacher.heads * teacher.head_dim * run.seen


def _merged_bytes(run: Run) -> float:
    """Bytes read and written per micro-batch to merge adapters into their matrices, in each pass through the layers."""
    passes = 2 + needs_checkpointing(run.config, run.shape, run.gpu_bytes)
    return 16.0 * passes * sum(layer.elements for layer in run.shape.adapted(run.config.learner.lora))


def _update_s(run: Run, trained: int) -> float:
    """Seconds of an optimizer step. An offloaded one is shared by all ranks; gradients go to the host and weights come back."""
    config = run.config
    size, ranks = _STEP_BYTES[config.learner.optimizer] * trained, config.placement.num_learner_gpus
    if config.learner.optimizer != "adamw_offload":
        return size / ranks / run.read_per_s
    sent = (4 + itemsize(config)) * trained / ranks
    return size / (run.assumed.host_gb_per_s * 1e9) + sent / run.sent_per_s


def _sent_s(run: Run, tokens: float) -> float:
    """Seconds of transfers to and from the host's memory: frozen models once per update, activations both ways."""
    config, shape = run.config, run.shape
    share = tokens / config.micro_batch_tokens / config.placement.num_learner_gpus
    sent = 2 * kept_on_host(config, shape) * share
    if config.learner.offload_reference and holds_reference(config):
        sent += config.learner.updates_per_batch * itemsize(config) * shape.parameters
    if config.loss.teacher.offload:
        sent += config.learner.updates_per_batch * teacher_bytes(config, shape)
        sent += 2 * waiting_bytes(config, shape) / config.placement.num_learner_gpus
    if config.learner.optimizer == "adamw_offload" and config.learner.zero_stage == 3:  # it sums gradients on the host
        sent += 8 * trained_parameters(config, shape) * share / config.placement.num_learner_gpus
    return sent / run.sent_per_s
