"""An export is whole or not there: files, settings, adapter, and what a kill or a mistake leaves."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from exportable import change_config, evaluated_run
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from launch.api.finished import load_run
from launch.export import main
from openrs_ray.errors import UserError
from openrs_ray.export.folder import generation_config, write_export
from openrs_ray.export.prompting import Prompting
from openrs_ray.export.source import Source
from openrs_ray.run.checkpoint_files import sync_and_list


@pytest.fixture
def run(tmp_path: Path, toy_folder: Path) -> Path:
    return evaluated_run(tmp_path / "runs", toy_folder, {0: 0.2, 50: 0.6, 100: 0.5})


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one sentence of a command that ends with exit code 2."""
    assert main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_an_export_is_a_model_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = run / "checkpoints" / "step-000050" / "policy"
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | {"use_cache": False}))
    (policy / "generation_config.json").write_text(
        json.dumps({"eos_token_id": 1, "top_k": 20, "repetition_penalty": 1.1})
    )
    change_config(run, rollout={"temperature": 0.7})
    assert main([str(run)]) == 0
    out = capsys.readouterr().out
    folder = run / "export" / "step-000050"
    assert "Step 50 has the highest accuracy" in out and str(folder) in out
    exported, trained = load_file(folder / "model.safetensors"), load_file(policy / "model.safetensors")
    assert exported.keys() == trained.keys() and all(torch.equal(exported[name], trained[name]) for name in trained)
    shutil.rmtree(run / "checkpoints")  # it needs nothing of the run
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template and model.config.use_cache is not False
    sampling = GenerationConfig.from_pretrained(folder)
    assert (sampling.do_sample, sampling.temperature, sampling.top_p, sampling.top_k) == (True, 0.7, 1.0, 0)
    assert sampling.use_cache is True and sampling.repetition_penalty == 1.0 and sampling.max_new_tokens is None
    assert 1 in (sampling.eos_token_id if isinstance(sampling.eos_token_id, list) else [sampling.eos_token_id])
    ends = json.loads((folder / "prompt.json").read_text())["end_ids"]
    assert tokenizer.eos_token_id in ends, "all tokens that ended a completion in training"
    assert "whose licence is not known here" in (folder / "LICENSE").read_text()
    umask = os.umask(0o022)
    os.umask(umask)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask for file in folder.iterdir())


def test_a_step_and_a_folder_by_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(run), "--step", "100", "--folder", str(tmp_path / "empty")]) == 0
    assert "Step 100 was asked for" in capsys.readouterr().out
    assert (tmp_path / "empty" / "model.safetensors").is_file() and not (run / "export").exists()


def test_mistakes_are_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no policy of step 70: there are 50, 100" in said(capsys, run, "--step", "70")
    assert "give best, or the number of a step" in said(capsys, run, "--step", "last")
    assert "there is no run" in said(capsys, tmp_path / "nothing").lower()
    assert "no kept policy yet" in said(capsys, evaluated_run(tmp_path / "young", run / "none", {}, ()))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert "is not empty, and nothing in it was changed" in said(capsys, run, "--folder", full)
    assert [file.name for file in full.iterdir()] == ["mine.txt"]
    assert "is a file" in said(capsys, run, "--folder", full / "mine.txt")
    assert "--converter llama.cpp/convert_hf_to_gguf.py" in said(capsys, run, "--gguf", "q8_0")
    assert "There is no converter" in said(capsys, run, "--gguf", "q8_0", "--converter", tmp_path / "none.py")
    assert not (run / "export").exists()


def test_a_damaged_policy_is_not_exported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = run / "checkpoints" / "step-000050"
    manifest = run / "checkpoints" / "manifest.json"
    content = json.loads(manifest.read_text())
    entry = next(entry for entry in content["checkpoints"] if entry["step"] == 50)
    entry["files"] = [{"path": file.path, "size": file.size, "crc32": file.crc32} for file in sync_and_list(checkpoint)]
    manifest.write_text(json.dumps(content))
    weights = checkpoint / "policy" / "model.safetensors"
    bytes_ = bytearray(weights.read_bytes())
    bytes_[-1] ^= 1
    weights.write_bytes(bytes_)
    assert "the policy of step 50 is damaged" in said(capsys, run).lower()
    assert not (run / "export").exists()
    bytes_[-1] ^= 1
    weights.write_bytes(bytes_)
    assert main([str(run)]) == 0


@pytest.mark.parametrize("cut", [KeyboardInterrupt, UserError, OSError])
def test_an_interrupted_export_leaves_nothing(run: Path, tmp_path: Path, cut: type[BaseException]) -> None:
    def convert(_: Path) -> None:
        raise cut("stopped in the middle")

    source = Source.find(run, "best")
    with pytest.raises(cut):
        write_export(source, tmp_path / "out" / "model", convert=convert)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_is_taken_away(run: Path, tmp_path: Path) -> None:
    left = tmp_path / "model.tmp"
    left.mkdir()
    (left / "half.safetensors").write_bytes(b"half")
    write_export(Source.find(run, "best"), tmp_path / "model")
    assert not left.exists() and not (tmp_path / "model" / "half.safetensors").exists()


def test_a_full_disk_is_said_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(UserError, match="make room, or give another --folder"):
        write_export(Source.find(run, "best"), tmp_path / "model")
    assert not (tmp_path / "model").exists() and not (tmp_path / "model.tmp").exists()


def test_a_run_with_adapters_gives_both(run: Path) -> None:
    change_config(run, learner={"lora": {"rank": 4}})
    adapter = run / "checkpoints" / "step-000050" / "adapter"
    adapter.mkdir()
    save_file({"a": torch.ones(2)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text("{}")
    write_export(Source.find(run, "best"), run / "export")
    assert (run / "export" / "adapter" / "adapter_model.safetensors").is_file()
    card = (run / "export" / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card and "rank 4, alpha 8" in card
    assert "low-rank adapters, merged" in (run / "export" / "README.md").read_text()
    AutoModelForCausalLM.from_pretrained(run / "export")


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("start", "start"),
        ("hub/models--Qwen--Qwen2.5-0.5B/snapshots/abc", "Qwen/Qwen2.5-0.5B"),
        ("toy", "toy"),
    ],
)
def test_an_exported_adapter_names_its_base_as_others_know_it(
    run: Path, tmp_path: Path, toy_folder: Path, model: str, base: str
) -> None:
    """No file of the adapter has a path of this machine; the run keeps the one that peft loads."""
    folder = tmp_path / model
    shutil.copytree(toy_folder, folder)
    trained_on = {"base_model_name_or_path": str(folder), "r": 4}
    change_config(run, learner={"lora": {"rank": 4}}, model={"path": model if model == "toy" else str(folder)})
    adapter = run / "checkpoints" / "step-000050" / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps(trained_on))
    write_export(Source.find(run, "best"), tmp_path / "out")
    exported = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert exported == {"base_model_name_or_path": base, "r": 4}
    texts = {file.name: file.read_text() for file in (tmp_path / "out" / "adapter").iterdir()}
    assert texts.keys() == {"adapter_config.json", "README.md"}
    assert not any(str(tmp_path) in text for text in texts.values())
    assert json.loads((adapter / "adapter_config.json").read_text()) == trained_on


def test_the_licence_s_text_goes_along(run: Path, tmp_path: Path, toy_folder: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(toy_folder, start)
    (start / "LICENSE.txt").write_text("All of the licence")
    (start / "README.md").write_text("---\nlicense: mit\n---\n")
    change_config(run, model={"path": str(start)})
    write_export(Source.find(run, "best"), run / "export")
    assert (run / "export" / "LICENSE.txt").read_text() == "All of the licence"
    assert not (run / "export" / "LICENSE").exists()
    assert "license: mit" in (run / "export" / "README.md").read_text()


def test_generation_config_keeps_special_tokens_only() -> None:
    start = {
        "bos_token_id": 7,
        "eos_token_id": [5, 6],
        "top_k": 20,
        "top_p": 0.8,
        "temperature": 0.1,
        "max_new_tokens": 9,
    }
    made = generation_config({"pad_token_id": 3}, start, Prompting(end_ids=(5,), temperature=0.6))
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
    assert made == {"bos_token_id": 7, "pad_token_id": 3, "eos_token_id": 5, **sampling, "use_cache": True}
    assert generation_config({}, start, Prompting())["eos_token_id"] == [5, 6]


def test_from_python(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(name: str, words: list[str]) -> None:
        assert name == "export" and main(words) == 0

    monkeypatch.setattr("launch.api.finished.run_command", here)  # else in a process of its own
    trained = load_run(run)
    assert trained.export() == run / "export" / "step-000050"
    assert (run / "export" / "step-000050" / "README.md").is_file()
    assert trained.export(100, folder=run / "mine") == run / "mine" and (run / "mine" / "README.md").is_file()
    with pytest.raises(UserError, match="no policy of step 70"):
        trained.export(step=70)
