"""Asks a model about many problems: Ray Data streams chunks of them through a pool of vLLM engines.

Token ids go in and texts come out. Every reply has a seed of its own, whatever chunk it is
asked in. Ray Data replaces an engine that dies and asks its chunk again.
"""

import logging
import os
import queue
import shutil
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayError

from actors.cluster.placement import check_built_for, engine_variables, joins_cluster
from actors.cluster.processes import new_mark
from openrs_ray.cluster.layout import Device
from openrs_ray.common.private_folder import MARK, folder_of, private_folder
from openrs_ray.curation.fates import Reply
from openrs_ray.curation.pipeline import Question, Replies
from openrs_ray.curation.recipe import Engines, Judged, Solved
from openrs_ray.data.completions import completion_texts
from openrs_ray.errors import RunError, UserError
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.pretrained import read_config, read_tokenizer
from openrs_ray.models.stop_tokens import stop_tokens


class Asker:
    """One engine, as an actor of Ray Data. It is called with a table of questions and returns one of replies."""

    def __init__(self, arguments: dict[str, Any], sampling: dict[str, Any], end_ids: tuple[int, ...]) -> None:
        os.environ.setdefault("VLLM_RPC_BASE_PATH", str(private_folder()))
        from vllm import LLM

        self._engine = LLM(**arguments)
        self._sampling = sampling | {"stop_token_ids": list(end_ids), "detokenize": False}
        self._tokenizer = read_tokenizer(arguments["model"])
        self._end_ids = end_ids

    def __call__(self, questions: pa.Table) -> pa.Table:
        from vllm import SamplingParams

        rows = questions.to_pylist()
        wanted = [(row["row"], row["prompt_ids"], seed) for row in rows for seed in row["seeds"]]
        outputs = self._engine.generate(
            [{"prompt_token_ids": ids} for _, ids, _ in wanted],
            [SamplingParams(**self._sampling, seed=seed) for _, _, seed in wanted],
            use_tqdm=False,
        )
        replies: dict[int, list[dict[str, Any]]] = {row["row"]: [] for row in rows}
        texts = completion_texts([output.outputs[0].token_ids for output in outputs], self._tokenizer, self._end_ids)
        for (row, _, _), output, text in zip(wanted, outputs, texts, strict=True):
            said = output.outputs[0]
            replies[row].append({"text": text, "tokens": len(said.token_ids), "finish_reason": said.finish_reason})
        # All replies to a question in one row: Ray Data may cut a large table in two.
        return pa.Table.from_pylist([{"row": row, "replies": several} for row, several in replies.items()])


def ask(
    engines: Engines, seed: int, stage: Solved | Judged, questions: Sequence[Question]
) -> Generator[Replies, None, None]:
    """Replies to all questions, a chunk at a time as they end, in the connected cluster.

    Raises:
        UserError: the cluster has no place for an engine.
        RunError: engines could not start, or broke.
    """
    device, count = _place(engines)
    chunks = [questions[start : start + engines.chunk] for start in range(0, len(questions), engines.chunk)]
    threads = engines.threads or max(1, (os.cpu_count() or 1) // count)
    mark = new_mark()
    variables = mark | engine_variables(device) | ({"OMP_NUM_THREADS": str(threads)} if device == "cpu" else {})
    _quiet()
    replies = ray.data.from_arrow([_table(chunk) for chunk in chunks]).map_batches(
        Asker,
        fn_constructor_args=[_arguments(engines, seed, stage, device), _sampling(stage), _end_ids(stage)],
        batch_size=None,  # a block is a chunk
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(count, len(chunks)), max_tasks_in_flight_per_actor=1),
        num_cpus=engines.cpus,
        num_gpus=engines.tensor_parallel if device == "gpu" else 0,
        runtime_env={"env_vars": variables},
    )
    batches = replies.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for table in _in_time(iter(batches), engines.chunk_deadline_s, stage.model):
            yield _by_row(table)
    except (RayError, RuntimeError) as error:
        cause = str(error).strip().splitlines()[-1]  # after the trace in the engine's process
        raise RunError(f"an engine with {stage.model} failed: {cause}") from error
    finally:
        shutil.rmtree(folder_of(mark[MARK]), ignore_errors=True)


def _in_time(batches: Iterator[pa.Table], deadline_s: float, model: str) -> Iterator[pa.Table]:
    """The same batches; RunError when the next one does not come in time, which Ray Data would wait for without end."""
    upcoming: queue.Queue[Any] = queue.Queue()

    def fetch() -> None:
        try:
            for batch in batches:
                upcoming.put(batch)
            upcoming.put(None)
        except Exception as error:  # for whoever reads the queue
            upcoming.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    while True:
        try:
            found = upcoming.get(timeout=deadline_s)
        except queue.Empty:
            raise RunError(
                f"no engine with {model} has finished a chunk for {deadline_s:.0f} s (engines.chunk_deadline_s)"
            ) from None
        if isinstance(found, Exception):
            raise found
        if found is None:
            return
        yield found


def _place(engines: Engines) -> tuple[Device, int]:
    """The kind of device, and how many engines at once."""
    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0))
    device: Device = engines.device if engines.device != "auto" else "gpu" if gpus else "cpu"
    if not joins_cluster():
        check_built_for(device)
    count = engines.count or (1 if device == "cpu" else max(1, gpus // engines.tensor_parallel))
    asked = {"GPU": count * engines.tensor_parallel if device == "gpu" else 0, "CPU": count * engines.cpus}
    short = [name for name, amount in asked.items() if has.get(name, 0) < amount]
    if short:
        raise UserError(
            f"{count} engine(s) need {asked[short[0]]:g} {short[0]}s but the cluster has {has.get(short[0], 0):g}: lower "
            "engines.count, engines.tensor_parallel or engines.cpus, or add nodes"
        )
    return device, count


def _arguments(engines: Engines, seed: int, stage: Solved | Judged, device: Device) -> dict[str, Any]:
    length = stage.max_prompt_tokens + stage.max_tokens
    arguments: dict[str, Any] = {
        "model": resolve_model(stage.model),
        "trust_remote_code": False,
        "dtype": stage.dtype,
        "max_model_len": length,
        "max_num_seqs": engines.max_sequences,
        "max_num_batched_tokens": engines.max_batched_tokens,
        "tensor_parallel_size": engines.tensor_parallel,
        "seed": seed,
        "enforce_eager": device == "cpu",
    }
    if engines.tensor_parallel > 1:
        arguments["distributed_executor_backend"] = "mp"  # inside a Ray actor vLLM would start Ray workers
    if device == "gpu":
        return arguments | {"gpu_memory_utilization": engines.gpu_memory_fraction}
    # A prompt prefilled in parts takes its seeded generator back by an offset that CPU generators do not have.
    return arguments | {
        "kv_cache_memory_bytes": int(engines.cpu_cache_gib * 2**30),
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(length, engines.max_batched_tokens),
    }


def _sampling(stage: Solved | Judged) -> dict[str, Any]:
    return {"temperature": stage.temperature, "top_p": stage.top_p, "max_tokens": stage.max_tokens}


def _end_ids(stage: Solved | Judged) -> tuple[int, ...]:
    path = resolve_model(stage.model)
    vocabulary = read_config(path).get_text_config().vocab_size
    return tuple(token.id for token in stop_tokens(path, vocabulary, read_tokenizer(path)))


def _table(chunk: Sequence[Question]) -> pa.Table:
    return pa.table(
        {
            "row": [question.row for question in chunk],
            "prompt_ids": [list(question.prompt_ids) for question in chunk],
            "seeds": [list(question.seeds) for question in chunk],
        }
    )


def _by_row(table: pa.Table) -> Replies:
    return {one["row"]: tuple(Reply(**reply) for reply in one["replies"]) for one in table.to_pylist()}


def _quiet() -> None:
    """Ray Data says much on the terminal, whole traces too; what matters is said by who calls."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
