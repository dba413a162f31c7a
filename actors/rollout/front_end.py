"""vLLM's front end without what is paid per token and nobody reads."""

from typing import Any

from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.metrics.loggers import PrometheusStatLogger
from vllm.v1.outputs import LogprobsLists


def silent_statistics() -> Any:
    """A logger class with which vLLM notes times and computes nothing from them."""

    # Of this class, or vLLM adds one that updates some 40 metrics at every token.
    class Silent(PrometheusStatLogger):
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def record(self, *_: Any, **__: Any) -> None: ...
        def record_sleep_state(self, *_: Any, **__: Any) -> None: ...
        def record_admission_rejection(self, *_: Any, **__: Any) -> None: ...
        def log(self) -> None: ...
        def log_engine_initialized(self) -> None: ...

    return Silent


def only_ends(engine: Any) -> None:
    """Note times at a request's first and last token only: at every token it is slow."""
    processor = engine.output_processor
    update = processor._update_stats_from_output

    def update_at_ends(request: Any, output: Any, *more: Any) -> None:
        if request.is_prefilling or output.finish_reason is not None:
            update(request, output, *more)

    processor._update_stats_from_output = update_at_ends


class SampledLogprobs(LogprobsProcessor):
    """Keeps the sampled tokens' log-probabilities as arrays: vLLM makes six lists of them, token by token."""

    def _update_sample_logprobs(self, logprobs_lists: LogprobsLists) -> None:
        assert isinstance(self.logprobs, list)
        self.logprobs.append(logprobs_lists.logprobs[:, 0])


def keep_arrays(engine: Any, request_id: str) -> None:
    """Let this request, which asks for no more than the sampled tokens' log-probabilities, have them as a list of arrays."""
    state = engine.output_processor.request_states[request_id]
    given = state.logprobs_processor
    state.logprobs_processor = SampledLogprobs(
        None, [], given.prompt_logprobs, given.cumulative_logprob, given.num_logprobs, given.num_prompt_logprobs
    )
