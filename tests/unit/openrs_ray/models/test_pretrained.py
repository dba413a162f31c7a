"""Mistakes in a model's files are reported before anything starts; code that comes with a model is never run."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import torch
from commands import ROOT, write_recipe
from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import NotASafetensorsRepoError, SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo
from safetensors.torch import load_file, save_file
from tiny import make_config, save_model
from transformers import AutoModelForCausalLM, GPT2Config

from launch.shapes import main as shapes_command
from launch.train import main
from openrs_ray.algorithm.policy import load_policy
from openrs_ray.common import hub
from openrs_ray.config.schema import Model
from openrs_ray.data.prompts import load_tokenizer
from openrs_ray.errors import UserError
from openrs_ray.models import pretrained, weight_files
from openrs_ray.models.bundled import resolve_model
from openrs_ray.models.pretrained import check_shapes, read_config, read_generation_config, read_model, read_tokenizer
from openrs_ray.models.weight_files import check_weights, stored_shapes
from openrs_ray.preparation.prepared import check_model, prepare

Weights = dict[str, torch.Tensor]
NORM = "model.layers.1.input_layernorm.weight"


def changed(folder: Path, change: Callable[[Weights], Weights]) -> str:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
    return str(folder)


def shards(folder: Path) -> str:
    """A copy of the model with its weights in several files."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    return str(folder)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_model_is_taken(tmp_path: Path, family: str, tied: bool) -> None:
    path = str(save_model(tmp_path, family, tied))
    check_weights(path, read_config(path))
    check_weights(shards(tmp_path), read_config(path))
    config = make_config(tmp_path)
    check_model(config, path)


def test_weights_of_the_bare_model_and_of_other_names_are_taken_as_transformers_takes_them(tmp_path: Path) -> None:
    """Weights without the prefix `model.`, or GPT-2's with masks that old files hold and a tied head that they hold or lack."""
    path = changed(save_model(tmp_path / "bare"), lambda w: {name.removeprefix("model."): t for name, t in w.items()})
    check_weights(path, read_config(path))
    AutoModelForCausalLM.from_config(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64)).save_pretrained(
        tmp_path
    )
    with_masks = changed(tmp_path, lambda w: {**w, "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)})
    check_weights(with_masks, read_config(with_masks))


CHANGES: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "missing": (lambda w: {n: t for n, t in w.items() if n != NORM}, f"missing {NORM}"),
    "no head": (lambda w: {n: t for n, t in w.items() if n != "lm_head.weight"}, "missing lm_head.weight"),
    "unexpected": (lambda w: {**w, "v_head.weight": torch.ones(3)}, "unexpected v_head.weight"),
    "shape": (lambda w: {**w, NORM: torch.ones(5)}, f"{NORM} is 5 instead of 64"),
    "vocabulary": (
        lambda w: {**w, "lm_head.weight": torch.ones(70, 64)},
        "lm_head.weight is 70 x 64 instead of 64 x 64",
    ),
    "all missing": (
        lambda w: {"x.weight": torch.ones(1)},
        r"missing lm_head.weight, .* and 25 more; unexpected x.weight",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_that_are_not_those_of_the_config_are_refused_and_never_made_up(tmp_path: Path, name: str) -> None:
    change, sentence = CHANGES[name]
    path = changed(save_model(tmp_path), change)
    whole = rf"the weights of {tmp_path} are not those of the Qwen2ForCausalLM in its config.json: {sentence}\."
    with pytest.raises(UserError, match=whole):  # in preparation
        check_model(make_config(tmp_path), path)
    with pytest.raises(UserError, match=whole):  # and in the learner, from transformers' own report
        load_policy(path, "float32", 64)


def test_a_missing_embedding_of_a_tied_model_is_missing(tmp_path: Path) -> None:
    path = changed(save_model(tmp_path, tied=True), lambda w: {n: t for n, t in w.items() if "embed" not in n})
    with pytest.raises(UserError, match=r"missing lm_head.weight, model.embed_tokens.weight\."):
        check_weights(path, read_config(path))


def test_two_heads_where_the_config_says_one_are_refused(tmp_path: Path) -> None:
    """transformers then leaves them apart, with a warning; vLLM ties them."""
    same = changed(
        save_model(tmp_path, tied=True), lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"] + 0}
    )
    check_weights(same, read_config(same))
    load_policy(same, "float32", 64)
    other = changed(tmp_path, lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"] + 1})
    with pytest.raises(UserError, match="ties the output head to the embedding, but the weights hold two that differ"):
        load_policy(other, "float32", 64)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_tied_head_that_is_stored_too_is_taken_in_its_shape_only(tmp_path: Path, family: str, prefix: str) -> None:
    save_model(tmp_path, family, tied=True)

    def with_head(rows: int) -> Callable[[Weights], Weights]:
        return lambda w: {
            "lm_head.weight": torch.ones(rows, 64),
            **{name.replace("model.", prefix): t for name, t in w.items() if name != "lm_head.weight"},
        }

    check_weights(changed(tmp_path, with_head(64)), read_config(str(tmp_path)))
    with pytest.raises(UserError, match=r"lm_head.weight is 70 x 64 instead of 64 x 64"):
        check_weights(changed(tmp_path, with_head(70)), read_config(str(tmp_path)))


def test_a_model_without_memory_for_what_it_lacks_is_refused_all_the_same(tmp_path: Path) -> None:
    """Nothing is allocated: this one has a thousand billion weights."""
    config = read_config(str(save_model(tmp_path)))
    config.vocab_size, config.hidden_size = 10**6, 10**6
    with pytest.raises(UserError, match=r"missing lm_head.weight"):
        check_shapes(config, {"x": (1,)}, "big")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    no_weights(folder)


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def lost_shard(folder: Path) -> None:
    shards(folder)
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def odd_index(folder: Path) -> None:
    shards(folder)
    (folder / "model.safetensors.index.json").write_text("[]")


def deep_index(folder: Path) -> None:
    shards(folder)
    (folder / "model.safetensors.index.json").write_text("[" * 200_000)


def numbered_index(folder: Path) -> None:
    shards(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')


def quantized(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_weights, "has no weights: neither model.safetensors nor model.safetensors.index.json is in it"),
        (pickled, r"has weights only as a pickle \(.bin\), which could run code: save them as safetensors"),
        (cut_short, "model.safetensors is not a whole safetensors file: .+"),
        (lost_shard, "lacks 1 of the .+ files of its weights: model-00002-of-.+ is not there"),
        (odd_index, "model.safetensors.index.json is not the index of weights in several files"),
        (deep_index, "index.json is not the index of weights in several files: it is nested too deeply"),
        (numbered_index, "index.json is not the index of weights in several files: TypeError"),
        (quantized, "is quantized, and quantized weights cannot be trained"),
    ],
)
def test_files_that_cannot_be_read_are_a_sentence(tmp_path: Path, toy_folder: Path, spoil: Any, sentence: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder)
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as raised:
        prepare(make_config(tmp_path, model={"path": str(folder), "dtype": "float32"}))
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------------ models of the Hub


def in_cache(cache: Path, model: Path, *files: str) -> None:
    """The model as huggingface_hub keeps a download of some of its files."""
    entry = cache / "models--owner--name"
    snapshot = entry / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    (entry / "refs").mkdir(exist_ok=True)
    (entry / "refs" / "main").write_text("0" * 40)
    for file in files:
        shutil.copy(model / file, snapshot / file)


def test_a_model_of_the_hub_is_looked_at_in_the_cache_or_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(tmp_path / "model")
    shapes = stored_shapes(str(model))
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    in_cache(cache, model, "config.json", "model.safetensors")
    monkeypatch.setattr(weight_files, "try_to_load_from_cache", lambda path, file: str(cached(cache, file)))
    assert resolve_model("owner/name") == "owner/name" and stored_shapes("owner/name") == shapes

    shutil.rmtree(cache)
    in_cache(cache, model, "config.json")
    with pytest.raises(UserError, match="the weights of owner/name are not in the cache, and the Hub does not say"):
        stored_shapes("owner/name")
    infos = {name: TensorInfo("F32", list(shape), (0, 0)) for name, shape in shapes.items()}
    found = SafetensorsRepoMetadata({}, False, {}, {"model.safetensors": SafetensorsFileMetadata({}, infos)})
    monkeypatch.setattr(weight_files, "get_safetensors_metadata", lambda path: found)
    assert stored_shapes("owner/name") == shapes

    def pickle_only(path: str) -> None:
        raise NotASafetensorsRepoError

    monkeypatch.setattr(weight_files, "get_safetensors_metadata", pickle_only)
    with pytest.raises(UserError, match="owner/name has weights only as a pickle"):
        stored_shapes("owner/name")


def cached(cache: Path, file: str) -> Path:
    return next(cache.rglob(file))


@pytest.mark.parametrize("spoil", [deep_index, numbered_index])
def test_an_index_that_cannot_be_read_is_a_sentence_of_a_curation_too(
    tmp_path: Path, toy_folder: Path, spoil: Any
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder)
    spoil(folder)
    with pytest.raises(UserError, match=r"index.json is not the index of weights in several files"):
        check_weights(str(folder), read_config(str(folder)))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The Hub's cache of a machine without a network; empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.problem.cache_clear()
    yield tmp_path / "cache"
    hub.problem.cache_clear()


def test_a_damaged_file_of_the_cache_is_not_called_absent(hub_cache: Path, toy_folder: Path) -> None:
    in_cache(hub_cache, toy_folder, "config.json", "generation_config.json")
    with pytest.raises(UserError, match=r"owner/name \(the weights\) is not in this machine's cache: connect"):
        read_model("owner/name", torch.float32, "eager")
    for file, read in (("config.json", read_config), ("generation_config.json", read_generation_config)):
        cached(hub_cache, file).write_text("{")
        with pytest.raises(UserError, match=r"^cannot read .+ of owner/name: .*valid JSON"):
            read("owner/name")
    cached(hub_cache, "config.json").unlink()
    with pytest.raises(UserError, match=r"owner/name \(the configuration\) is not in this machine's cache: connect"):
        read_config("owner/name")


def test_a_generation_config_is_absent_only_where_that_is_known(
    tmp_path: Path, hub_cache: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its end tokens would not be heard."""
    assert read_generation_config(str(save_model(tmp_path / "model"))) is not None
    (tmp_path / "model" / "generation_config.json").unlink()
    assert read_generation_config(str(tmp_path / "model")) is None
    (tmp_path / "model" / "generation_config.json").symlink_to("gone")
    with pytest.raises(UserError, match=r"cannot read generation_config.json of"):
        read_generation_config(str(tmp_path / "model"))

    in_cache(hub_cache, toy_folder, "config.json")
    with pytest.raises(UserError, match=r"owner/name \(generation_config.json\) is not in this machine's cache"):
        read_generation_config("owner/name")
    said = cached(hub_cache, "snapshots").parent / ".no_exist" / ("0" * 40)
    said.mkdir(parents=True)
    (said / "generation_config.json").touch()
    assert read_generation_config("owner/name") is None
    shutil.rmtree(said.parent)
    in_cache(hub_cache, toy_folder, "config.json", "model.safetensors")  # `hf download` brings all that there is
    assert read_generation_config("owner/name") is None

    answer = httpx.Response(404, request=httpx.Request("HEAD", "https://hub"))
    for error, absent in [
        (RemoteEntryNotFoundError("no such file", response=answer), True),
        (HfHubHTTPError("the server is busy", response=answer), False),
        (OSError(28, "No space left on device"), False),
    ]:
        monkeypatch.setattr(pretrained, "hf_hub_download", Mock(side_effect=error))
        monkeypatch.setattr(pretrained, "unreachable", lambda name, instead: None)
        if absent:
            assert read_generation_config("owner/name") is None
        else:
            with pytest.raises(UserError, match=r"cannot read generation_config.json of owner/name: .*(busy|No space)"):
                read_generation_config("owner/name")


def test_shapes_are_of_a_configuration_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoConfig": "evil.C"}}')
    assert shapes_command([str(tmp_path)]) == 2
    assert "comes with code of its own, which is never run here" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ code of a model

EVIL = "from pathlib import Path\nPath({proof!r}).write_text('ran')\n{more}\n"


def with_code(folder: Path, model: Path, proof: Path) -> Path:
    """A copy whose architecture, tokenizer and generation come as code beside the weights."""
    shutil.copytree(model, folder)
    classes = "from transformers import PreTrainedConfig as C, PreTrainedModel as M, PreTrainedTokenizerFast as T"
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(EVIL.format(proof=str(proof), more=classes))
    edit(
        folder / "config.json",
        model_type="unheard-of",
        auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    )
    edit(folder / "tokenizer_config.json", tokenizer_class="Unheard", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]})
    return folder


def test_code_that_comes_with_a_model_is_never_run(
    tmp_path: Path, toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof"
    folder = with_code(tmp_path / "model", toy_folder, proof)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    sentence = "comes with code of its own, which is never run here"
    with pytest.raises(UserError, match=sentence):
        read_config(str(folder))
    with pytest.raises(UserError, match=sentence):
        load_tokenizer(Model(path=str(folder)))
    with pytest.raises(UserError, match=sentence):
        load_policy(str(folder), "float32", 64)
    # An architecture that transformers knows needs none of the code beside it.
    edit(folder / "config.json", model_type="qwen2")
    check_model(make_config(tmp_path), str(folder))
    load_policy(str(folder), "float32", 64)
    assert read_tokenizer(str(folder)).get_vocab() == read_tokenizer(str(toy_folder)).get_vocab()
    assert not proof.exists()


def test_a_yes_at_the_terminal_does_not_run_it_either(tmp_path: Path, toy_folder: Path) -> None:
    proof = tmp_path / "proof"
    folder = with_code(tmp_path / "model", toy_folder, proof)
    recipe = write_recipe(tmp_path / "recipe.yaml", folder, tmp_path, "run", 2)
    done = subprocess.run(
        [sys.executable, "-m", "launch.train", str(recipe), "--dry-run"],
        input="y\n" * 9, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and not proof.exists()
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {folder} comes with code of its own")
    assert "Traceback" not in done.stderr and "[y/N]" not in done.stdout


LOADERS = {"from_pretrained", "from_config", "get_class_from_dynamic_module", "pipeline"}


def calls_of(file: Path) -> set[str]:
    calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    return {call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls}


def test_every_load_goes_through_one_place_and_no_engine_trusts_code() -> None:
    sources = [file for folder in ("openrs_ray", "actors", "launch") for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(sources) > 100
    assert sorted(str(file.relative_to(ROOT)) for file in sources if calls_of(file) & LOADERS) == [
        "launch/performance/models.py",  # makes a random model of a configuration of its own
        "openrs_ray/models/pretrained.py",
    ]
    engines = {str(file.relative_to(ROOT)) for file in sources if calls_of(file) & {"LLM", "AsyncEngineArgs"}}
    assert engines == {
        "actors/rollout/worker.py",
        # with the arguments of actors.rollout.worker
        "launch/performance/parts.py",
        "launch/without_gpu/trial.py",
    }
    assert '"trust_remote_code": False' in (ROOT / "actors" / "rollout" / "worker.py").read_text()
    loads = [
        node
        for node in ast.walk(ast.parse((ROOT / "openrs_ray" / "models" / "pretrained.py").read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto")
    ]
    assert len(loads) >= 5 and all("**_NO_CODE" in ast.unparse(load) for load in loads)
    assert not [file for file in sources if "trust_remote_code=True" in file.read_text()]


def test_a_damaged_file_is_one_sentence(tmp_path: Path, toy_folder: Path) -> None:
    """The sentence does not depend on the error that the library has for it."""
    for number, (file, content) in enumerate(
        [("config.json", "[]"), ("config.json", "{"), ("tokenizer_config.json", "[]"), ("tokenizer.json", "{}"),
         ("tokenizer_config.json", '{"auto_map": 3}'), ("config.json", '{"model_type": "qwen2", "hidden_size": "x"}'),
         ("config.json", '{"model_type": "vit"}'), ("generation_config.json", "{"), ("generation_config.json", "[]")]
    ):  # fmt: skip
        folder = tmp_path / str(number)
        shutil.copytree(toy_folder, folder)
        (folder / file).write_text(content)
        with pytest.raises(UserError, match="cannot read") as raised:
            prepare(make_config(tmp_path, model={"path": str(folder), "dtype": "float32"}))
        assert "\n" not in str(raised.value), file


def test_the_command_says_it_with_exit_code_2(
    tmp_path: Path, toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder)
    changed(folder, lambda w: {n: t for n, t in w.items() if n != NORM})
    assert main([str(write_recipe(tmp_path / "recipe.yaml", folder, tmp_path, "run", 2))]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: The weights of {folder} are not those of the Qwen2ForCausalLM")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = changed(save_model(tmp_path), lambda w: {**w, "model.norm.weight": w["model.norm.weight"] * torch.nan})
    with pytest.raises(UserError, match=r"the weight model.norm.weight of .* holds numbers that are not finite"):
        load_policy(broken, "bfloat16", 64)
