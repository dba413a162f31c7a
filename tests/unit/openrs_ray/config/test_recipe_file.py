"""A recipe that `extends` another one: merged field by field, later wins, and messages name the file that holds the value."""

from pathlib import Path

import pytest
import yaml

from openrs_ray.config.load import load_config
from openrs_ray.config.schema import RunConfig
from openrs_ray.curation.recipe import Solved, load_recipe
from openrs_ray.errors import UserError

BASE = """
run: {name: base, folder: /runs, steps: 10}
model: {path: toy}
data: {path: toy, columns: {problem: question, answer: gold}, examples: [{problem: a, response: b}]}
rollout: {problems_per_step: 12, completions_per_problem: 6, max_completion_tokens: 100, temperature: 0.5}
rewards: {weights: {accuracy: 2.0, format: 1.0}, cosine: {max_length: 50, clamp: false}}
"""


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_sections_are_merged_field_by_field_and_values_replaced_as_a_whole(tmp_path: Path) -> None:
    own = """
extends: base
run: {name: own}
data: {columns: {answer: answer}, examples: []}
rollout: {temperature: 0.9}
rewards: {weights: {cosine: 2.0}, cosine: {max_length: 60}}
"""
    write(tmp_path, base=BASE, own=own)
    config = load_config(tmp_path / "own.yaml", ["--engine.max_sequences", "64"])
    expected = yaml.safe_load(BASE)
    expected["run"]["name"] = "own"
    expected["data"] |= {"columns": {"problem": "question", "answer": "answer"}, "examples": []}
    expected["rollout"] |= {"temperature": 0.9}
    expected["engine"] = {"max_sequences": 64}
    expected["rewards"] = {"weights": {"cosine": 2.0}, "cosine": {"max_length": 60, "clamp": False}}
    assert config == RunConfig.model_validate(expected)


def test_a_chain_ends_with_the_last_one_and_files_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", base=BASE, middle="extends: ./base.yaml\nrun: {steps: 20}\nrollout: {temperature: 0.6}\n")
    write(tmp_path, own="extends: below/middle.yaml\nrun: {name: own}\nrollout: {temperature: 0.7}\n")
    config = load_config(tmp_path / "own.yaml", [])
    assert (config.run.name, config.run.steps, config.rollout.temperature) == ("own", 20, 0.7)
    assert config.rollout.problems_per_step == 12


def test_a_recipe_of_the_project_is_extended_by_name_from_anywhere(tmp_path: Path) -> None:
    write(tmp_path, **{"open-rs3": "extends: open-rs3\nrun: {name: cheaper}\nmodel: {path: toy}\n"})
    config = load_config(tmp_path / "open-rs3.yaml", [])
    assert config.run.name == "cheaper" and config.rewards.weights == {"cosine": 2.0, "format": 1.0}
    assert config.learner.zero_stage == 2 and config.rollout.max_completion_tokens == 3584
    assert "fidelity" in config.model_fields_set


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"own": "extends: nothing\n"}, r"no recipe nothing, which .*own\.yaml extends; .*there are .*one-gpu"),
        ({"own": "extends: own\n"}, r"own.yaml extends itself: name another recipe"),
        ({"own": "extends: own.yaml\n"}, r"own.yaml extends itself: name another recipe"),
        ({"own": "extends: a\n", "a": "extends: b\n", "b": "extends: own\n"}, r"circle: own.yaml -> a.yaml -> b.yaml -> own"),
        ({"own": "extends: a\n", "a": "extends: b\n", "b": "extends: a\n"}, r"circle: a.yaml -> b.yaml -> a.yaml"),
        ({"own": "extends: [base, other]\n", "base": BASE}, r"own\.yaml: extends must be the name or the file of one recipe"),
        ({"own": "extends: base\n", "base": "a: [b\n"}, r"base\.yaml is not valid YAML"),
    ],
)  # fmt: skip
def test_a_base_that_is_none_is_one_sentence(tmp_path: Path, texts: dict[str, str], said: str) -> None:
    write(tmp_path, **texts)
    with pytest.raises(UserError, match=said) as error:
        load_config(tmp_path / "own.yaml", [])
    assert "\n" not in str(error.value)


def test_a_message_names_the_file_that_holds_the_value(tmp_path: Path) -> None:
    write(
        tmp_path,
        base=BASE.replace("problems_per_step: 12", "problems_per_step: 0").replace("temperature", "temperatur"),
        own="extends: base\nrun: {steps: none}\nlearner: {lr: 1}\nloss: {kl_beta: 0.1, clip_epsilon: 2}\n",
    )
    with pytest.raises(UserError) as error:
        load_config(tmp_path / "own.yaml", ["--loss.clip_epsilon", "3", "--learner.zero_stage=7"])
    heading, *lines = [line.strip() for line in str(error.value).splitlines()]
    assert heading == "6 mistakes:"
    assert {line.split("; ")[0] for line in lines} == {
        f'{tmp_path}/own.yaml: run.steps is "none"',
        f"{tmp_path}/own.yaml: learner.lr is not a field",
        f"{tmp_path}/base.yaml: rollout.problems_per_step is 0",
        f"{tmp_path}/base.yaml: rollout.temperatur is not a field",
        "--loss.clip_epsilon is 3",
        "--learner.zero_stage is 7",
    }


def test_a_check_of_several_fields_blames_the_one_that_was_given_last(tmp_path: Path) -> None:
    write(tmp_path, base=BASE, own="extends: base\nrollout: {top_p: 0.9}\n")
    with pytest.raises(UserError, match=rf"^{tmp_path}/own.yaml: rollout.top_p must be 1"):
        load_config(tmp_path / "own.yaml", [])
    with pytest.raises(UserError, match=r"^--rollout.top_p must be 1"):
        load_config(tmp_path / "base.yaml", ["--rollout.top_p", "0.9"])
    with pytest.raises(UserError, match=r"^--placement.num_rollout_gpus: placement.colocated needs"):
        load_config(tmp_path / "base.yaml", ["--placement", "{colocated: true}", "--placement.num_rollout_gpus", "2"])


def test_a_data_recipe_extends_another_one_stage_by_stage(tmp_path: Path) -> None:
    changed = "sources: {s1: {path: s1.jsonl}}\nstages: {trivial: {samples: 4, temperature: 1.0}}\n"
    write(tmp_path, own=f"extends: open-s1-data\nname: mine\n{changed}")
    recipe, original = (
        load_recipe(tmp_path / "own.yaml", ["--stages.trivial.samples", "5"]),
        load_recipe("open-s1-data", []),
    )
    trivial = recipe.stages["trivial"]
    assert isinstance(trivial, Solved) and (trivial.samples, trivial.temperature, trivial.top_p) == (5, 1.0, 0.95)
    assert list(recipe.stages) == list(original.stages) and recipe.stages["noisy"] == original.stages["noisy"]
    assert recipe.sources["s1"].path == "s1.jsonl" and recipe.sources["s1"].columns == original.sources["s1"].columns


def test_a_recipe_that_holds_itself_ends(tmp_path: Path) -> None:
    grown = "\n".join(f"  a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}" for n in range(1, 30))
    write(
        tmp_path,
        base=BASE,
        loop="extends: base\nrun: &r {again: *r}\n",
        bomb=f"extends: base\nrun:\n  a0: &a0 {{x: 1}}\n{grown}\n",
    )
    for name in ("loop", "bomb"):
        with pytest.raises(UserError, match="is not a field"):
            load_config(tmp_path / f"{name}.yaml", [])


def test_the_papers_experiments_differ_only_in_what_the_paper_changes() -> None:
    one, two, three = (load_config(f"open-rs{number}", []).model_dump() for number in (1, 2, 3))

    def differing(left: dict, right: dict) -> set[str]:
        return {
            f"{part}.{name}"
            for part in left
            if isinstance(left[part], dict)
            for name in left[part]
            if left[part][name] != right[part][name]
        }

    assert differing(one, two) == {"run.name", "data.path", "rollout.max_completion_tokens"}
    assert differing(two, three) == {"run.name", "data.system_prompt", "rewards.weights"}
    assert (one["data"]["path"], two["data"]["path"]) == ("knoveleng/open-s1", "knoveleng/open-rs")
    assert (one["rollout"]["max_completion_tokens"], two["rollout"]["max_completion_tokens"]) == (4096, 3584)
