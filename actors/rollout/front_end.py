"""vLLM's front end without per-token work whose results are not used here."""

from typing import Any

from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.outputs import LogprobsLists


def silent_statistics() -> Any:
    """A logger class with which vLLM records times but computes no statistics."""

    # A subclass of vLLM's own: otherwise vLLM adds a logger that updates some 40 metrics at every token.
    class Silent(PrometheusStatLogger):
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def record(self, *_: Any, **__: Any) -> None: ...
        def record_sleep_state(self, *_: Any, **__: Any) -> None: ...
        def record_admission_rejection(self, *_: Any, **__: Any) -> None: ...
        def log(self) -> None: ...
        def log_engine_initialized(self) -> None: ...

    return Silent


def only_ends(engine: Any) -> None:
    """Record times at a request's first and last token only, because doing so at every token is slow."""
    processor = engine.output_processor
    update = processor._update_stats_from_output

    def update_at_ends(request: Any, output: Any, *more: Any) -> None:
        if request.is_prefilling or output.finish_reason is not None:
            update(request, output, *more)

    processor._update_stats_from_output = update_at_ends


class SampledLogprobs(LogprobsProcessor):
    """Keeps the sampled tokens' log-probabilities as arrays, where vLLM builds six lists token by token."""

    def _update_sample_logprobs(self, logprobs_lists: LogprobsLists) -> None:
        assert isinstance(self.logprobs, list)
        self.logprobs.append(logprobs_lists.logprobs[:, 0])


def keep_arrays(engine: Any, request_id: str) -> None:
    """Return this request's log-probabilities as a list of arrays. It must ask for those of the sampled tokens alone."""
    state = engine.output_processor.request_states[request_id]
    given = state.logprobs_processor
    state.logprobs_processor = SampledLogprobs(
        None, [], given.prompt_logprobs, given.cumulative_logprob, given.num_logprobs, given.num_prompt_logprobs
    )
