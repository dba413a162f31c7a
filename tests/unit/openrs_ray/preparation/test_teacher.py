"""Models that a run cannot learn from are refused before any engine starts, each with one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import make_config

from openrs_ray.errors import UserError
from openrs_ray.preparation.prepared import Prepared, prepare
from openrs_ray.preparation.teacher import teacher_ends


def prepared(folder: Path, toy: Path, teacher: Path | str, **loss: Any) -> Prepared:
    sections = {"path": str(teacher)}
    config = make_config(
        folder,
        model={"path": str(toy), "dtype": "float32"},
        loss={"kind": "distill", "teacher": sections, **loss},
    )
    return prepare(config)


def changed(folder: Path, toy: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the toy whose files `change` has edited."""
    copy = folder / "teacher"
    shutil.copytree(toy, copy)
    change(copy)
    return copy


def edited(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_copy_of_the_policy_is_a_teacher_with_its_shape(tmp_path: Path, toy_folder: Path) -> None:
    """As is the folder of an earlier run's policy, which has the same files."""
    shape = prepared(tmp_path, toy_folder, changed(tmp_path, toy_folder, lambda _: None)).shape
    assert shape.teacher is not None and shape.teacher.parameters == shape.parameters and shape.teacher.teacher is None


def test_a_teacher_that_gives_a_token_another_id_is_refused(tmp_path: Path, toy_folder: Path) -> None:
    def swap(copy: Path) -> None:
        file = copy / "tokenizer.json"
        content = json.loads(file.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["7"], vocabulary["8"] = vocabulary["8"], vocabulary["7"]
        file.write_text(json.dumps(content))

    with pytest.raises(
        UserError, match=r"teacher reads other tokens than the policy: '7', id \d+, has the id \d+ there"
    ):
        prepared(tmp_path, toy_folder, changed(tmp_path, toy_folder, swap))


def test_a_teacher_without_a_token_of_the_policy_is_refused(tmp_path: Path, toy_folder: Path) -> None:
    def forget(copy: Path) -> None:
        file = copy / "tokenizer.json"
        content = json.loads(file.read_text())
        content["model"]["vocab"]["#"] = content["model"]["vocab"].pop(";")
        file.write_text(json.dumps(content))

    with pytest.raises(UserError, match=r"';', id \d+, is not in it; choose a teacher with the policy's tokenizer"):
        prepared(tmp_path, toy_folder, changed(tmp_path, toy_folder, forget))


def test_a_teacher_that_ends_its_answers_otherwise_is_refused(tmp_path: Path, toy_folder: Path) -> None:
    def end_otherwise(copy: Path) -> None:
        for name in ("config.json", "generation_config.json"):
            edited(copy / name, eos_token_id=5)
        edited(copy / "tokenizer_config.json", eos_token="<|assistant|>")
        template = copy / "chat_template.jinja"
        template.write_text(template.read_text().replace("<|end|>", "<|assistant|>"))

    with pytest.raises(UserError, match=r"ends its answers with none of the tokens .*<\|end\|>.* teach never to end"):
        prepared(tmp_path, toy_folder, changed(tmp_path, toy_folder, end_otherwise))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"max_position_embeddings": 20}, "is 40 but loss.teacher.path .* takes at most 20 tokens"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"),
    ],
)
def test_a_teacher_that_the_learner_cannot_compute_is_refused(
    tmp_path: Path, toy_folder: Path, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        prepared(
            tmp_path, toy_folder, changed(tmp_path, toy_folder, lambda copy: edited(copy / "config.json", **values))
        )


def test_a_teacher_that_is_nowhere_is_named_with_its_field(tmp_path: Path, toy_folder: Path) -> None:
    with pytest.raises(UserError, match=r"no model at .*nowhere.*: set loss\.teacher\.path to"):
        prepared(tmp_path, toy_folder, tmp_path / "nowhere")


def test_groups_of_equal_rewards_are_not_replaced_where_a_teacher_teaches_on_them(
    tmp_path: Path, toy_folder: Path
) -> None:
    rollout = {
        "problems_per_step": 4,
        "completions_per_problem": 4,
        "max_prompt_tokens": 16,
        "max_completion_tokens": 24,
        "replace_uniform_groups": 1,
    }
    with pytest.raises(ValueError, match="groups of equal rewards learn from the teacher"):
        make_config(tmp_path, rollout=rollout, loss={"kind": "distill", "teacher": {"path": str(toy_folder)}})


def test_a_teacher_that_no_engine_can_serve_is_refused_where_it_is_measured(tmp_path: Path, toy_folder: Path) -> None:
    """Heads of another size than vLLM has on a CPU, which the learner would compute."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    odd = changed(tmp_path, toy_folder, lambda copy: edited(copy / "config.json", **heads))
    with pytest.raises(UserError, match=r"teacher have size 16, which vLLM does not have on a CPU"):
        check_teacher_of(tmp_path, toy_folder, odd, {"hold_out": 4})
    check_teacher_of(tmp_path, toy_folder, odd, {})


def check_teacher_of(folder: Path, toy: Path, teacher: Path, evaluation: dict[str, Any]) -> None:
    prepare(
        make_config(
            folder,
            model={"path": str(toy), "dtype": "float32"},
            evaluation=evaluation,
            loss={"kind": "distill", "teacher": {"path": str(teacher)}},
        )
    )


def test_a_teacher_ends_its_answers_with_its_own_tokens_too(tmp_path: Path, toy_folder: Path) -> None:
    another = changed(tmp_path, toy_folder, lambda copy: edited(copy / "generation_config.json", eos_token_id=[1, 5]))
    ready = prepared(tmp_path, toy_folder, another)
    assert ready.shape.teacher is not None and ready.eos_ids == (1,)
    assert teacher_ends(str(another), ready.shape.teacher) == {1, 5}
