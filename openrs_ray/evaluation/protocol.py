"""Sampling protocols of evaluations: as published, or robust."""

from dataclasses import dataclass
from typing import Any, Literal

from openrs_ray.config.schema import RunConfig
from openrs_ray.errors import UserError
from openrs_ray.evaluation.benchmarks import PAPER_PROMPT, Prompt
from openrs_ray.evaluation.check import Rules

Name = Literal["as_published", "robust", "held_out"]
"""held_out: as a run trains, for choosing a checkpoint; not made by `protocol`."""
PromptName = Literal["paper", "run", "plain"]

_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Protocol:
    name: Name
    samples: int
    """Completions of each problem."""
    temperature: float
    top_p: float
    max_tokens: int
    rules: Rules
    prompt: Prompt

    def settings(self) -> dict[str, Any]:
        """Everything that makes completions comparable."""
        return {
            "protocol": self.name,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "rules": self.rules,
            "prompt": self.prompt.name,
        }


def protocol(
    name: Name,
    run: RunConfig | None,
    samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    prompt: PromptName | None = None,
) -> Protocol:
    """A protocol with the given values in place of its own. UserError where they do not fit."""
    asked = {"samples": samples, "temperature": temperature, "top-p": top_p, "max-tokens": max_tokens, "prompt": prompt}
    given = [f"--{key}" for key, value in asked.items() if value is not None and (key, value) != ("samples", 1)]
    if name == "as_published" and given:
        raise UserError(f"protocol as_published leaves nothing to choose: leave out {', '.join(given)}, or take robust")
    if temperature is not None and not 0 <= temperature <= 100:
        raise UserError(f"--temperature is {temperature:g}; allowed: 0 (greedy) to 100")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p is {top_p:g}; allowed: above 0, up to 1")
    if prompt == "run" and run is None:
        raise UserError("--prompt run needs a run: give paper or plain")
    chosen: PromptName = prompt or ("run" if run is not None and name == "robust" else "paper")
    prompts = {"paper": PAPER_PROMPT, "plain": Prompt("plain")}
    return Protocol(
        name=name,
        samples=samples or (1 if name == "as_published" else _SAMPLES),
        temperature=0.6 if temperature is None else temperature,
        top_p=0.95 if top_p is None else top_p,
        max_tokens=max_tokens or 32_768,
        rules="published" if name == "as_published" else "boxed",
        prompt=Prompt("run", data=run.tasks[0].data) if chosen == "run" and run is not None else prompts[chosen],
    )
