"""Runs a notebook of docs/ top to bottom."""

import os
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from places import PYTHONPATH, ROOT


def run_notebook(file: Path, timeout_s: float, **environment: str) -> Any:
    """The notebook with its new outputs; CellExecutionError, with the cell and its traceback, where one fails."""
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        resources={"metadata": {"path": ROOT}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=os.environ | {"PYTHONPATH": PYTHONPATH} | environment)
    return notebook
