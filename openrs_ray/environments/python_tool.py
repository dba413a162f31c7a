"""The environment `python_tool`: runs the programs that the model writes, and shows it what they print."""

import time

from openrs_ray.config.task import Task
from openrs_ray.environments.tool_calls import ToolCall
from openrs_ray.sandbox.program import run_program, strength
from openrs_ray.sandbox.records import Limits, Outcome, Ran

_WALL_FACTOR = 2
"""Seconds by the clock for each second of computing: programs wait, and machines are loaded."""
_SPARE_S = 5.0
"""For the start of the sandbox."""


class PythonTool:
    """Every call runs in a fresh process of the sandbox: nothing is kept from one to the next.

    A program that hangs, fails or takes too much is the model's own mistake, and its result says so.
    """

    tools = (
        {
            "type": "function",
            "function": {
                "name": "python",
                "description": "Runs a Python program and returns what it prints. Nothing is kept between two calls.",
                "parameters": {
                    "type": "object",
                    "properties": {"code": {"type": "string", "description": "The program; print what you need."}},
                    "required": ["code"],
                },
            },
        },
    )

    def __init__(self, task: Task, seconds: float = 5.0, memory_gib: float = 0.5, max_characters: int = 2000) -> None:
        """`seconds`: of computing, for all programs of one turn."""
        if not (0 < seconds <= 3600 and 0 < memory_gib <= 1024 and 0 < max_characters <= 1_000_000):
            raise ValueError("seconds, memory_gib and max_characters must be above 0")
        if task.environment.deadline_s < _WALL_FACTOR * seconds + _SPARE_S:
            least = _WALL_FACTOR * seconds + _SPARE_S
            raise ValueError(
                f"seconds ({seconds:g}) needs an environment.deadline_s of at least {least:g}, or a program that hangs would "
                "count as a fault of the environment"
            )
        strength()  # SandboxFailed where no program can be run, before the run
        self.seconds, self.memory_gib, self.most = float(seconds), float(memory_gib), int(max_characters)

    def reply(self, *, tool_calls: list[ToolCall]) -> list[str] | None:
        ends = time.monotonic() + _WALL_FACTOR * self.seconds
        return [self._result(str(call.arguments["code"]), ends - time.monotonic()) for call in tool_calls] or None

    def _result(self, code: str, left_s: float) -> str:
        if left_s <= 0:
            return "error: not run, because the programs before it took all the time of this turn"
        limits = Limits(
            cpu_s=min(self.seconds, left_s),
            wall_s=left_s,
            memory_gib=self.memory_gib,
        )
        ran = run_program(code, limits=limits)
        said = [self._shortened(ran.stdout), self._shortened(ran.stderr), self._end(ran)]
        return "\n".join(text for text in said if text) or "(the program printed nothing)"

    def _end(self, ran: Ran) -> str:
        if ran.outcome is Outcome.TIMEOUT:
            return f"error: timed out after {self.seconds:g} s"
        return "" if ran.outcome is Outcome.FINISHED else f"error: {ran.detail or ran.outcome}"

    def _shortened(self, text: str) -> str:
        """Beginning and end of a long text."""
        text, half = text.rstrip(), self.most // 2
        if len(text) <= self.most:
            return text
        return f"{text[:half]}\n... ({len(text) - 2 * half} characters left out)\n{text[-half:]}"
