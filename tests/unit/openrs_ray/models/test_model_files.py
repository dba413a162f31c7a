"""Whatever a start model's files are like, its policy can be exported, and that is known before the first step."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import make_config
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from openrs_ray.common import killable as bounded
from openrs_ray.config.schema import Model
from openrs_ray.data.prompts import load_tokenizer
from openrs_ray.errors import UserError
from openrs_ray.models import model_files as module
from openrs_ray.models.model_files import ModelFiles, model_files
from openrs_ray.models.pretrained import read_config, read_tokenizer
from openrs_ray.preparation.prepared import prepare

UNWRITABLE = {"do_sample": False, "temperature": 0.6, "eos_token_id": 1, "pad_token_id": 0}
"""transformers reads it, and refuses to write it."""

MADE = {"README.md", "prompt.json"}
"""Say how to prompt the policy: tests/unit/openrs_ray/export/test_usage.py."""


@pytest.fixture
def folder(tmp_path: Path, toy_folder: Path) -> Path:
    copied = tmp_path / "model"
    shutil.copytree(toy_folder, copied)
    return copied


def prepared_files(folder: Path, runs: Path, **model: Any) -> ModelFiles:
    return prepare(make_config(runs, model={"path": str(folder), "dtype": "float32", **model})).files


def test_a_generation_config_that_cannot_be_written_is_copied(folder: Path, tmp_path: Path) -> None:
    content = json.dumps(UNWRITABLE)
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ValueError, match="temperature"):
        GenerationConfig.from_pretrained(folder).save_pretrained(tmp_path / "refused")
    files = prepared_files(folder, tmp_path)
    shutil.rmtree(folder)  # nothing that becomes of the start model costs the run its checkpoints
    files.write(tmp_path / "policy")
    assert (tmp_path / "policy" / "generation_config.json").read_text() == content


def test_files_are_those_of_the_start_model_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    files = prepared_files(folder, tmp_path)
    files.write(tmp_path / "policy")
    written = {file.name for file in (tmp_path / "policy").iterdir()}
    assert written - MADE == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    }
    assert written > MADE
    for name in written - MADE:
        assert (tmp_path / "policy" / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_template_that_was_trained_with_is_the_one_that_is_exported(folder: Path, tmp_path: Path) -> None:
    own = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}={% endif %}"
    (tmp_path / "own.jinja").write_text(own)
    assert own != AutoTokenizer.from_pretrained(folder).chat_template
    for place in ("chat_template.jinja", "tokenizer_config.json"):
        if place == "tokenizer_config.json":  # the older way
            settings = json.loads((folder / place).read_text()) | {"chat_template": "{{ 'another' }}"}
            (folder / place).write_text(json.dumps(settings))
            (folder / "chat_template.jinja").unlink()
        target = tmp_path / place.partition(".")[0]
        prepared_files(folder, tmp_path, chat_template=str(tmp_path / "own.jinja")).write(target)
        (target / "config.json").write_bytes((folder / "config.json").read_bytes())
        assert AutoTokenizer.from_pretrained(target).chat_template == own


def test_a_tokenizer_whose_files_read_otherwise_elsewhere_is_written_anew(folder: Path, tmp_path: Path) -> None:
    """A tokenizer that transformers treats by the name of its model, as an example."""
    tokenizer = load_tokenizer(Model(path=str(folder)))
    tokenizer.add_tokens(["otherwise"])
    model_files(str(folder), read_config(str(folder)), tokenizer).write(tmp_path / "policy")
    (tmp_path / "policy" / "config.json").write_bytes((folder / "config.json").read_bytes())
    exported = read_tokenizer(str(tmp_path / "policy"))
    assert exported.get_vocab() == tokenizer.get_vocab() != read_tokenizer(str(folder)).get_vocab()
    assert exported.chat_template == tokenizer.chat_template
    own = (folder / "generation_config.json").read_bytes()
    assert (tmp_path / "policy" / "generation_config.json").read_bytes() == own


def test_what_cannot_be_written_is_said_before_the_first_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tokenizer = read_config(str(folder)), load_tokenizer(Model(path=str(folder)))

    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError("no JSON")

    with monkeypatch.context() as patched:
        patched.setattr(type(config), "save_pretrained", refuse)
        with pytest.raises(UserError, match=r"config.json of .+ can be read but not written, so no policy .+: no JSON"):
            prepared_files(folder, tmp_path)
    tokenizer.add_tokens(["otherwise"])
    with monkeypatch.context() as patched:
        patched.setattr(type(tokenizer), "save_pretrained", refuse)
        with pytest.raises(UserError, match=r"the tokenizer of .+ can be read but not written"):
            model_files(str(folder), config, tokenizer)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_answers", lambda tokenizer: (object(),))
        with pytest.raises(UserError, match="does not read the same once it is saved"):
            model_files(str(folder), config, tokenizer)


def test_a_tokenizer_that_never_ends_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a tokenizer's patterns may need longer than anybody waits."""
    monkeypatch.setattr(bounded, "DEADLINE_S", 1)
    config, tokenizer = read_config(str(folder)), load_tokenizer(Model(path=str(folder)))
    monkeypatch.setattr(type(tokenizer), "_encode_plus", lambda *_, **__: time.sleep(30))
    with pytest.raises(UserError, match="did not end within 1 s"):
        model_files(str(folder), config, tokenizer)


def test_an_export_is_a_whole_model(folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    files = prepared_files(folder, tmp_path)
    policy = tmp_path / "policy"
    model.save_pretrained(policy)
    (policy / "generation_config.json").unlink()
    files.write(policy)
    config = make_config(tmp_path, model={"path": str(policy), "dtype": "float32"})
    again = prepare(config)
    assert again.eos_ids == (1,)
    ours, theirs = ({n: c for n, c in each.files.items() if n not in MADE} for each in (files, again.files))
    assert ours == theirs and again.files.files.keys() >= MADE
