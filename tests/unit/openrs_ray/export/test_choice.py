"""Which policy is exported: the best on held-out problems, the earlier of equal ones, or the one that is named."""

import json
from pathlib import Path

import pytest
from exportable import change_config, evaluated_run, note_accuracies

from openrs_ray.errors import UserError
from openrs_ray.export.choice import Asked, chosen, kept_policies


def choose(folder: Path, asked: Asked = "best") -> tuple[int, str]:
    choice = chosen(folder, kept_policies(folder), asked)
    return choice.step, choice.why


def test_the_best_is_the_one_with_the_highest_held_out_accuracy(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {0: 0.9, 25: 0.8, 50: 0.6, 75: 0.5, 100: 0.4}, (50, 75, 100))
    step, why = choose(run)
    assert step == 50, "neither the last one, nor one that was not kept, nor the start model"
    assert why.startswith("Step 50 has the highest accuracy on the run's held-out problems of the 3 kept policies")
    assert "No benchmark had a say" in why


def test_of_equal_ones_the_earlier_is_taken_and_said(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {50: 0.5, 75: 0.7, 100: 0.7}, (50, 75, 100))
    step, why = choose(run)
    assert step == 75 and "step 100 had the same, and the earlier one is taken" in why


def test_an_evaluation_that_was_repeated_counts_as_it_was_last(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {50: 0.9, 100: 0.6})
    note_accuracies(run, {50: 0.3, 100: 0.6})  # by an attempt that began anew
    assert choose(run)[0] == 100


def test_policies_that_were_not_evaluated_are_counted(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {0: 0.1, 100: 0.4, 50: None}, (50, 75, 100))
    step, why = choose(run)
    assert step == 100
    assert why.startswith("Step 100 is the only kept policy that was evaluated on the run's held-out problems; ")
    assert why.endswith("; 2 more kept policies were not evaluated.")


def test_benchmarks_have_no_say(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {50: 0.6, 100: 0.5})
    report = run / "evaluation" / "robust" / "step-000100" / "report.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"models": {"sums, step 100": {"aime24": {"average": {"mean": 1.0}}}}}))
    assert choose(run)[0] == 50


@pytest.mark.parametrize("path", ["aime24", "HuggingFaceH4/MATH-500"])
def test_held_out_problems_that_are_a_benchmark_choose_nothing(tmp_path: Path, toy_folder: Path, path: str) -> None:
    run = evaluated_run(tmp_path, toy_folder, {50: 0.6, 100: 0.5})
    change_config(run, evaluation={"path": path})
    with pytest.raises(UserError, match=f"those of a benchmark .{path}., which must not choose a policy"):
        choose(run)
    assert choose(run, 100)[0] == 100


def test_a_step_that_is_named(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {50: 0.6, 100: 0.5})
    assert choose(run, 100) == (100, "Step 100 was asked for.")
    with pytest.raises(UserError, match="run sums has no policy of step 70: there are 50, 100"):
        choose(run, 70)


def test_without_held_out_problems_a_step_must_be_named(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {})
    with pytest.raises(
        UserError, match=r"no kept policy of run sums was evaluated .* name one with --step, of 50, 100"
    ):
        choose(run)
    with pytest.raises(UserError, match="has no kept policy yet"):
        choose(evaluated_run(tmp_path / "young", toy_folder, {}, ()))


def test_rewards_decide_where_no_answer_is_right_or_wrong(tmp_path: Path, toy_folder: Path) -> None:
    run = evaluated_run(tmp_path, toy_folder, {})
    (run / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"step": step, "attempt": 1, "phase": "evaluation", "mean_reward": reward}) + "\n"
            for step, reward in {0: 3.0, 50: 2.0, 100: 1.0}.items()
        )
    )
    step, why = choose(run)
    assert step == 50 and "the highest mean reward" in why
