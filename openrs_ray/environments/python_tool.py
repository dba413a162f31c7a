"""The environment `python_tool`: runs the programs that the model writes, and shows it what they print."""

from openrs_ray.environments.tool_calls import ToolCall
from openrs_ray.sandbox.program import run_program
from openrs_ray.sandbox.records import Limits, Outcome, Ran


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

    def __init__(self, seconds: float = 5.0, memory_gib: float = 0.5, max_characters: int = 2000) -> None:
        if not (0 < seconds <= 3600 and 0 < memory_gib <= 1024 and 0 < max_characters <= 1_000_000):
            raise ValueError("seconds, memory_gib and max_characters must be above 0")
        self.seconds = seconds
        self.most = max_characters
        self.limits = Limits(
            cpu_s=seconds,
            wall_s=2 * seconds,
            memory_gib=memory_gib,
            output_bytes=8 * max_characters,
        )

    def reply(self, *, tool_calls: list[ToolCall]) -> list[str] | None:
        return [self._result(str(call.arguments["code"])) for call in tool_calls] or None

    def _result(self, code: str) -> str:
        ran = run_program(code, limits=self.limits)
        parts = [ran.stdout.rstrip(), _error(ran), self._end(ran)]
        return self._shortened("\n".join(part for part in parts if part)) or "(the program printed nothing)"

    def _end(self, ran: Ran) -> str:
        if ran.outcome is Outcome.FINISHED:
            return ""
        return f"error: {ran.detail or ran.outcome}"

    def _shortened(self, text: str) -> str:
        if len(text) <= self.most:
            return text
        half = self.most // 2
        return f"{text[:half]}\n... ({len(text) - 2 * half} characters left out)\n{text[-half:]}"


def _error(ran: Ran) -> str:
    return ran.stderr.rstrip()
