"""docs/quickstart.ipynb runs top to bottom on a CPU, and what it shows in the repository is of a whole run."""

import json
import re
from pathlib import Path

import pytest
from notebooks import run_notebook
from places import ROOT

FILE = ROOT / "docs" / "quickstart.ipynb"
MOST_BYTES = 300_000


def test_its_outputs_are_of_one_run_top_to_bottom_and_name_no_machine() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert not re.findall(r"/(?:home|root|tmp|work|Users|usr|opt|var)/[^\"\\ ]*", text), "paths of a machine"
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert all(cell["metadata"].get("alt") for cell in cells if "curves(plain" in "".join(cell["source"]))


@pytest.mark.nightly
@pytest.mark.timeout(1500)
@pytest.mark.cpu_engine
def test_it_runs_top_to_bottom(tmp_path: Path) -> None:
    notebook = run_notebook(FILE, 700, STEPS="2", OPENRS_RUNS=str(tmp_path / "runs"))
    shown = {
        "".join(cell["source"]).split("\n")[0]: "".join(str(output) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert (
        "step 2/2" in shown['plain = openrs.train("quickstart", run={"name": "notebook", "steps": STEPS}, resume=True)']
    )
    assert re.search(r"before: \d+\.\d%", shown['for when in ("before", "after"):'])
    assert "0.666" in shown["def carries(completion):"], "the second column should have taken over a 1"
    assert shown["curves(plain=plain, carries=guided);"].count("image/png") == 1
    rows = (tmp_path / "runs" / "notebook-carries" / "metrics.jsonl").read_text().splitlines()
    assert any("carries" in name for line in rows for name in json.loads(line)), "the reward of the cell was computed"
