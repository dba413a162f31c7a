"""Reports of benchmarks in a run's folder, and the policies that they are of."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrs_ray.common.files import read_json
from openrs_ray.evaluation.identity import model_identity

_OF_A_STEP = re.compile(r"step-0*(\d+)")


@dataclass(frozen=True, slots=True)
class RunReport:
    """Example: RunReport(Path("RUN/evaluation/robust/step-000050/report.json"))"""

    path: Path

    @property
    def step(self) -> int | None:
        match = _OF_A_STEP.fullmatch(self.path.parent.name)
        return int(match[1]) if match else None

    @property
    def content(self) -> dict[str, Any]:
        """UserError when it is damaged."""
        return read_json(self.path) or {}

    def outdated(self) -> str:
        """A sentence about a report whose policy the run no longer has; empty where it still has it, or where nobody knows.

        A run that goes back, or resumes from before a damaged checkpoint, may train the same step again.
        """
        settings = (read_json(self.path.with_name("settings.json")) or {}).get("settings")
        asked = settings.get("model") if isinstance(settings, dict) else None
        if self.step is None or not isinstance(asked, str):
            return ""
        policy = self.path.parents[3] / "checkpoints" / self.path.parent.name / "policy"
        try:
            if model_identity(str(policy)) == asked:
                return ""
        except OSError:  # it is being removed just now; who looks again finds it gone
            return ""
        return f"This report is of a policy that the run no longer has: step {self.step} was trained again, or removed."


def reports_in(run: Path) -> list[RunReport]:
    """All that lie in the run's folder, by path."""
    return [RunReport(path) for path in sorted((run / "evaluation").glob("*/*/report.json"))]
