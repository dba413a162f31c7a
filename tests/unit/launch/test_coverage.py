"""The command that proves what was trained on: on a run that is right, and on copies that are not, each in one way."""

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from whole_run import PROBLEMS, SAMPLES, STEPS, P, Rows, rewrite, write_run

from launch.coverage import main
from openrs_ray.common.files import append_line
from openrs_ray.run.attempts import start_attempt
from openrs_ray.run.completion_files import Phase, RecordFile, current_files, record_files, write_file
from openrs_ray.run.completions import SCHEMA, current_rows
from openrs_ray.run.coverage import check_coverage

RIGHT = "6 steps, 19 groups, 1 of them replaced, 72 completions trained on\npositions lost: 0\n"


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("right") / "run")


@pytest.fixture
def run(right: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(right, tmp_path / "run"))


def said(run: Path, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert main([str(run)]) == code
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return output.out + output.err


def note_of_attempt(run: Path, attempt: int, **changes: Any) -> None:
    """Change what the attempt's line says; None takes it out."""
    lines = [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]
    changed = lines[attempt - 1] | changes
    lines[attempt - 1] = {name: value for name, value in changed.items() if value is not None}
    (run / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def file_of(run: Path, step: int, phase: Phase = "train") -> Path:
    (file,) = [file for file in current_files(run, phase) if file.step == step]
    return file.path


def test_every_position_is_listed_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--csv", str(run / "positions.csv")]) == 0
    output = capsys.readouterr().out
    assert output.startswith(RIGHT) and output.endswith("rows checked: 84\n")
    lines = list(csv.DictReader((run / "positions.csv").open()))
    assert [int(line["position"]) for line in lines] == list(range(19))
    assert lines[7] | {"problem": ""} == {
        "position": "7", "epoch": "1", "problem": "", "phase": "train", "step": "3", "attempt": "2",
        "versions": "1-2", "completions": "4",
    }  # fmt: skip
    assert [int(line["position"]) for line in lines if line["phase"] == "replaced"] == [10]


def test_steps_that_only_others_know_of_are_lost(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The end of the record, known from the figures, from the result, or from a checkpoint; then all of the record."""
    for step in (5, 6):
        file_of(run, step).unlink()
    lost = "positions lost: 6: 13, 14, 15, 16, 17, 18\n"
    assert lost in said(run, capsys)
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text("".join(lines.splitlines(keepends=True)[:-2]))
    assert lost in said(run, capsys)
    (run / "result.json").unlink()
    assert lost in said(run, capsys)
    (run / "metrics.jsonl").write_text(lines)
    (run / "checkpoints" / "manifest.json").unlink()
    assert lost in said(run, capsys)
    for file in (*record_files(run, "train"), *record_files(run, "replaced")):
        file.path.unlink()
    output = said(run, capsys)
    assert output.startswith("6 steps, 0 groups, 0 completions") and "positions lost: 18" in output


def test_steps_that_are_missing_in_the_middle_are_lost(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file_of(run, 3).unlink()
    assert "positions lost: 3: 6, 7, 8\n" in said(run, capsys)


def test_nothing_is_no_proof(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (*run.glob("completions/*"), run / "metrics.jsonl", run / "result.json"):
        path.unlink()
    shutil.rmtree(run / "checkpoints")
    assert "has not finished a step yet" in said(run, capsys, 2)


def test_a_record_that_nothing_bears_out_is_no_proof(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("metrics.jsonl", "result.json", "checkpoints/manifest.json"):
        (run / name).unlink()
    assert "steps without a line in metrics.jsonl: 5: step 2, step 3" in said(run, capsys)


def test_a_kill_between_the_rows_of_a_step_and_its_figures_is_no_fault(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    (run / "result.json").unlink()
    manifest = json.loads((run / "checkpoints" / "manifest.json").read_text())
    manifest["checkpoints"].pop()
    (run / "checkpoints" / "manifest.json").write_text(json.dumps(manifest))
    assert said(run, capsys, 0).startswith(RIGHT)


def test_a_run_that_goes_on_meanwhile_is_no_fault(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The witness is called before the record is read, and steps are done in between."""
    lines = (run / "metrics.jsonl").read_text()
    manifest = json.loads((run / "checkpoints" / "manifest.json").read_text())
    manifest["checkpoints"].pop()
    (run / "checkpoints" / "manifest.json").write_text(json.dumps(manifest))
    (run / "result.json").unlink()
    (run / "metrics.jsonl").write_text("".join(lines.splitlines(keepends=True)[:-3]))

    def go_on(*which: Any) -> Iterator[RecordFile]:
        (run / "metrics.jsonl").write_text(lines)
        return current_files(*which)

    monkeypatch.setattr("openrs_ray.run.coverage.current_files", go_on)
    assert said(run, capsys, 0).startswith(RIGHT)


def change(name: str, value: Any, row: int = 0) -> Callable[[Rows], object]:
    return lambda rows: rows[row].update({name: value})


def all_rows(name: str, value: Any) -> Callable[[Rows], object]:
    return lambda rows: [row.update({name: value}) for row in rows]


TOKENS = ("token_ids", "logprobs", "sampled", "text", "length", "versions", "mean_logprob")
GIVEN = 12
"""A given token of row 2."""


def copied(rows: Rows) -> None:
    """The first completion of each group stands in the place of the others."""
    for number, row in enumerate(rows):
        row |= {name: rows[number - number % SAMPLES][name] for name in TOKENS}


def short_copies(rows: Rows) -> None:
    """Each pair may be chance, but not all four."""
    for row in rows[:SAMPLES]:
        row |= {"token_ids": [7, 8], "logprobs": [-10.0, -6.0], "sampled": None, "length": 2, "text": "15"}
        row["versions"] = [{"version": 3, "start": 0, "end": 2}]


def from_version(version: int) -> Callable[[Rows], object]:
    return lambda rows: rows[0].update(versions=[{"version": version, "start": 0, "end": rows[0]["length"]}])


def shortened(rows: Rows) -> None:
    rows[0]["logprobs"] = rows[0]["logprobs"][:-1]


def cut(rows: Rows) -> None:
    """A token less, everywhere but in the figures."""
    row = rows[0]
    row |= {"token_ids": row["token_ids"][:-1], "logprobs": row["logprobs"][:-1], "length": row["length"] - 1}
    row["versions"][-1]["end"] -= 1


FAULTS: dict[str, tuple[Callable[[Rows], object], str]] = {
    "another problem": (change("problem_index", 99, 1), "groups of several problems: 1: step 4 position 9"),
    "another text": (change("problem", "1 + 1 = ?", 1), "groups of several problems: 1: step 4 position 9"),
    "another text in the whole group": (
        lambda rows: [row.update(problem="1 + 1 = ?") for row in rows[:SAMPLES]],
        "rows with another text than their problem has: 4: step 4 position 9 sample 0, ",
    ),
    "no text": (change("problem", None), ".parquet has rows without problem: what was trained on cannot be proven"),
    "copies": (copied, "groups in which completions are copies of another: 3"),
    "copies of a short one": (short_copies, "groups in which completions are copies of another: 1: step 4 position 9"),
    "a copy with the answer of another": (
        lambda rows: rows[1].update({name: rows[0][name] for name in TOKENS}, answer="4"),
        "groups in which the same tokens are different texts or answers: 1: step 4 position 9",
    ),
    "another text of the same tokens": (
        lambda rows: rows[1].update({name: rows[0][name] for name in TOKENS}, text="other"),
        "groups in which the same tokens are different texts or answers: 1: step 4 position 9",
    ),
    "no advantage": (change("advantage", None), "groups whose advantages do not follow from their rewards: 1"),
    "no advantages": (all_rows("advantage", None), "groups whose advantages do not follow from their rewards: 3"),
    "an advantage too many": (change("reward", None), "groups whose advantages do not follow from their rewards: 1"),
    "another advantage": (change("advantage", 0.1), "groups whose advantages do not follow from their rewards: 1"),
    "another verdict": (change("status", "wrong"), "steps that are not as they were counted: 1: step 4 (accuracy is "),
    "an answer less": (
        change("status", "no_answer", 1),
        "no_answer_share is ",
    ),
    "another reward": (change("reward", 0.25), "steps that are not as they were counted: 1: step 4 (reward is "),
    "a future version": (from_version(4), "rows sampled by a policy that was too old or did not exist yet: 1"),
    "an old version": (
        from_version(1),
        "rows sampled by a policy that was too old or did not exist yet: 1: step 4 pos",
    ),
    "no versions": (
        change("versions", []),
        "rows whose versions do not cover the completion: 1: step 4 position 9 sample 0",
    ),
    "null versions": (all_rows("versions", None), ".parquet has rows without versions: what was trained on"),
    "a null version": (
        change("versions", [{"version": None, "start": 0, "end": 5}, {"version": 3, "start": 5, "end": 40}]),
        ".parquet has rows without versions: ",
    ),
    "a null token": (lambda rows: rows[3]["token_ids"].append(None), ".parquet has rows without token_ids: "),
    "no position": (change("position", None), ".parquet has rows without position: "),
    "a gap": (
        change("versions", [{"version": 2, "start": 0, "end": 5}, {"version": 3, "start": 6, "end": 40}]),
        "rows whose versions do not cover the completion: 1",
    ),
    "another step": (change("step", 3), "rows that contradict the name of their file: 1"),
    "another attempt": (all_rows("attempt", 1), "rows that contradict the name of their file: 12"),
    "another phase": (all_rows("phase", "evaluation"), "rows that contradict the name of their file: 12"),
    "a log-probability less": (shortened, "rows with other numbers of tokens, log-probabilities and length: 1"),
    "no log-probability": (
        change("logprobs", [math.nan]),
        "rows with tokens or log-probabilities that cannot be: 1: step 4 position 9 sample 0",
    ),
    "a log-probability above 0": (
        lambda rows: rows[0]["logprobs"].__setitem__(3, 0.5),
        "rows with tokens or log-probabilities that cannot be: 1: step 4 position 9 sample 0",
    ),
    "a token below 0": (
        lambda rows: rows[0]["token_ids"].__setitem__(3, -1),
        "rows with tokens or log-probabilities that cannot be: 1: step 4 position 9 sample 0",
    ),
    "a length": (change("length", 1), "rows with other numbers of tokens, log-probabilities and length: 1"),
    "a token less": (cut, "steps that are not as they were counted: 1: step 4 (sampled_tokens is "),
    "a given token as sampled": (
        lambda rows: rows[2]["sampled"].__setitem__(GIVEN, True),
        "rows whose versions do not cover the completion: 1: step 4 position 9 sample 2",
    ),
    "all tokens as sampled": (change("sampled", None, 2), "rows whose versions do not cover the completion: 1: step 4"),
    "a given token as sampled, counted": (
        lambda rows: rows[2].update(sampled=[*[True] * 13, *rows[2]["sampled"][13:]], length=rows[2]["length"] + 1),
        "rows whose versions do not cover the completion: 1: step 4 position 9 sample 2",
    ),
    "a version of a given token": (
        lambda rows: rows[2]["versions"][0].update(end=GIVEN + 1),
        "rows whose versions do not cover the completion: 1: step 4 position 9 sample 2",
    ),
    "the version of a given token instead of a sampled one": (
        lambda rows: [
            rows[2]["versions"][1].__setitem__(side, rows[2]["versions"][1][side] - 1) for side in ("start", "end")
        ],
        "rows whose versions do not cover the completion: 1: step 4 position 9 sample 2",
    ),
    "an older version in the second turn": (
        lambda rows: [rows[2]["versions"][turn].update(version=3 - turn) for turn in (0, 1)],
        "rows whose versions do not cover the completion: 1: step 4 position 9 sample 2",
    ),
    "a log-probability of a given token": (
        lambda rows: rows[2]["logprobs"].__setitem__(GIVEN, -0.5),
        "rows with tokens or log-probabilities that cannot be: 1: step 4 position 9 sample 2",
    ),
    "a mark less": (
        lambda rows: rows[2]["sampled"].pop(),
        "rows with other numbers of tokens, log-probabilities and length: 1",
    ),
    "a null mark": (lambda rows: rows[2]["sampled"].__setitem__(3, None), ".parquet has rows without sampled: "),
    "no rows": (lambda rows: rows.clear(), "step 4 (trained on 0 groups instead of 3)"),
    "nothing sampled": (
        lambda rows: [row.update(token_ids=[], logprobs=[], sampled=None, length=0, versions=[]) for row in rows],
        "rows whose versions do not cover the completion: 12",
    ),
    "a row less": (lambda rows: rows.pop(), "positions lost: 1: 12\n"),
    "a row twice": (lambda rows: rows.append(rows[0]), "positions counted twice: 1: 9\n"),
    "a group less": (lambda rows: [rows.pop() for _ in range(SAMPLES)], "step 4 (trained on 2 groups instead of 3)"),
    "a group more": (
        lambda rows: [rows.append(row | {"position": 20}) for row in rows[:SAMPLES]],
        "positions not due yet: ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_cannot_be_true_is_named(run: Path, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    change, sentence = FAULTS[fault]
    rewrite(run, 4, change)
    assert sentence in said(run, capsys)


def test_truncated_completions_have_no_advantage_exactly_where_they_are_left_out(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = "groups whose advantages do not follow from their rewards: 1: step 4 position 9"
    rewrite(run, 4, lambda rows: rows[0].update(finish_reason="length", advantage=None))
    assert fault in said(run, capsys)
    note_of_attempt(run, 2, without_truncated=True)
    assert "advantages do not follow" not in said(run, capsys)
    rewrite(run, 4, lambda rows: rows[0].update(advantage=0.1))
    assert fault in said(run, capsys)
    rewrite(run, 4, lambda rows: [row.update(finish_reason="length", advantage=None) for row in rows[:SAMPLES]])
    assert "advantages do not follow" not in said(run, capsys), "a group of nothing else"


def test_a_record_of_a_version_without_given_tokens_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a run goes on, files with and without the column stand side by side."""
    for file in [*current_files(run, "evaluation"), *current_files(run, "train")]:
        if file.step <= 1:
            rows = file.read().drop_columns(["sampled"])
            file.path.unlink()
            write_file(run, file.phase, file.step, file.attempt, rows)
    assert said(run, capsys, 0).startswith(RIGHT)
    assert current_rows(run).column("sampled").null_count == P * SAMPLES + (STEPS - 1) * P * (SAMPLES - 1)


def test_a_problem_that_is_another_one_at_every_place_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in [*record_files(run, "replaced"), *current_files(run, "train")]:
        rewrite(run, file.step, all_rows("problem", "1 + 1 = ?"), file.phase)
    assert "rows with another text than their problem has: 76" in said(run, capsys)
    content = json.loads((run / "problems.json").read_text())
    del content["texts"]  # of an older version: the rows can only be held against each other
    (run / "problems.json").write_text(json.dumps(content))
    assert "rows with another text" not in said(run, capsys, 0)
    rewrite(run, 4, all_rows("problem", "2 + 2 = ?"))
    assert "rows with another text than their problem has: 12" in said(run, capsys)


def test_another_problem_than_the_order_has_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((run / "problems.json").read_text())
    (run / "problems.json").write_text(json.dumps(content | {"count": len(PROBLEMS) + 1, "texts": []}))
    assert "positions with another problem than the order has: " in said(run, capsys)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (change("reward", 0.0), "groups that were replaced although their rewards differ: 1: step 4 position 10"),
        (change("advantage", 0.0), "groups with advantages that were not trained on: 1: step 4 position 10"),
    ],
)
def test_a_group_that_was_not_to_be_replaced_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], fault: Callable[[Rows], object], sentence: str
) -> None:
    rewrite(run, 4, fault, "replaced")
    assert sentence in said(run, capsys)


def test_groups_are_replaced_only_where_that_is_allowed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the attempt's own line, and where an older version wrote it by the config."""
    note_of_attempt(run, 2, replaced_per_step=0)
    assert "step 4 (replaced 1 groups, of at most 0)" in said(run, capsys)
    for attempt in (1, 2):
        note_of_attempt(run, attempt, replaced_per_step=None)
    assert said(run, capsys, 0).startswith(RIGHT)
    config = json.loads((run / "config.json").read_text())
    config["rollout"]["replace_uniform_groups"] = 0
    (run / "config.json").write_text(json.dumps(config))
    assert "step 4 (replaced 1 groups, of at most 0)" in said(run, capsys)


def test_tokens_are_held_against_the_bound_of_their_attempt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume may change it: what was sampled before is not too old by what the config says now."""
    config = json.loads((run / "config.json").read_text())
    config["rollout"]["staleness"] = 0
    (run / "config.json").write_text(json.dumps(config))
    assert said(run, capsys, 0).startswith(RIGHT)
    note_of_attempt(run, 2, staleness=0)
    assert "too old or did not exist yet: 13: step 3 position 6 sample 1, " in said(run, capsys)


def test_rows_follow_from_the_settings_of_their_own_attempt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume changes these, too; and for a version that noted none of them they are those of the config."""
    config = json.loads((run / "config.json").read_text())
    config["loss"] |= {"truncated_completions": "leave_out", "tempered": False}
    (run / "config.json").write_text(json.dumps(config))
    rewrite(run, 4, lambda rows: rows[0].update(finish_reason="length"))
    assert "advantages do not follow" not in said(run, capsys)
    note_of_attempt(run, 2, without_truncated=None)
    assert "advantages do not follow from their rewards: 1: step 4 position 9" in said(run, capsys)


def test_copies_are_a_fault_only_where_log_probabilities_tell_how_rare_they_are(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not where an attempt kept those at temperature 1 of completions that were sampled at another one."""
    fault, config = "groups in which completions are copies of another", json.loads((run / "config.json").read_text())
    rewrite(run, 4, copied)
    config["loss"]["tempered"], config["rollout"]["temperature"] = False, 0.7
    (run / "config.json").write_text(json.dumps(config))
    assert fault in said(run, capsys), "the attempt's own settings count"
    note_of_attempt(run, 2, likelihoods=None)
    assert fault not in said(run, capsys)


def test_two_files_of_one_step_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = file_of(run, 4)
    again = [row | {"worker": 7} for row in record_rows(rows)]
    write_file(run, "train", 4, 2, pa.Table.from_pylist(again, schema=SCHEMA))
    output = said(run, capsys)
    assert (
        "steps with two files of one kind: 1: step 4\n" in output and "positions counted twice: 3: 9, 11, 12" in output
    )


def record_rows(path: Path) -> Rows:
    (file,) = [file for file in record_files(path.parent.parent) if file.path == path]
    rows: Rows = file.read().to_pylist()
    return rows


def test_a_damaged_file_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (2, 5):
        path = file_of(run, step)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    output = said(run, capsys)
    assert output.count("\n") == 1 and output.startswith(
        f"error: {file_of(run, 2)} does not have the content that was written"
    )
    assert "(and 1 more files)" in output


def test_a_file_of_other_columns_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.Table.from_pylist(record_rows(file_of(run, 4)), schema=SCHEMA)
    for harm, sentence in (
        (table.drop(["versions"]), ".parquet cannot be read (No match for"),
        (
            table.set_column(SCHEMA.get_field_index("step"), "step", pa.array([4.0] * 12)),
            ".parquet has step as double instead of int64",
        ),
    ):
        file_of(run, 4).unlink()
        write_file(run, "train", 4, 2, harm)
        assert sentence in said(run, capsys)


def test_files_of_an_older_version_are_counted_and_said_to_be_unchecked(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in record_files(run):
        file.path.rename(file.path.with_name(file.path.name[:-17] + ".parquet"))
    assert len(record_files(run)) == 9
    assert "files of an older version, without a checksum: 8\n" in said(run, capsys, 0)
    path = file_of(run, 2)
    path.write_bytes(path.read_bytes()[:-9])
    assert f"error: {path} cannot be read (" in said(run, capsys)


def test_rows_of_an_attempt_that_nobody_noted_are_no_proof(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (run / "attempts.jsonl").read_text().splitlines(keepends=True)
    (run / "attempts.jsonl").write_text(lines[0])
    assert "attempts.jsonl has no line of attempt 2, which wrote rows or figures" in said(run, capsys, 2)
    (run / "attempts.jsonl").unlink()
    assert "attempts.jsonl has no line of attempt 1" in said(run, capsys, 2)
    assert start_attempt(run, 6) == 3, "and no number is given twice"


def test_figures_of_another_attempt_than_the_rows_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").unlink()
    for line in lines:
        append_line(run / "metrics.jsonl", line | ({"attempt": 1} if line["step"] == 2 else {}))
    assert said(run, capsys, 0)
    append_line(run / "metrics.jsonl", lines[-1] | {"sampled_tokens": None})
    assert "step 6 (sampled_tokens is " in said(run, capsys)


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} is no run's folder: config.json cannot be read.\n"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", '{"run": {}}', "was written by another version"),
        ("config.json", "null", "config.json is damaged"),
        ("problems.json", '{"fingerprint": ""}', "problems.json is damaged"),
        ("metrics.jsonl", '{"figure": 1}\n', "metrics.jsonl is damaged"),
        ("attempts.jsonl", '{"attempt": 1}\n', "attempts.jsonl is damaged"),
        ("result.json", "{}", "result.json is damaged"),
        ("checkpoints/manifest.json", "null", "manifest.json is damaged"),
    ],
)
def test_a_file_without_its_shape_is_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, sentence: str
) -> None:
    (run / file).write_text(content)
    output = said(run, capsys, 2)
    assert output.startswith("error: ") and sentence in output and output.count("\n") == 1


def test_a_superseded_step_does_not_count(run: Path) -> None:
    rows = [row | {"step": 9, "attempt": 1} for row in record_rows(file_of(run, 4))]
    write_file(run, "train", 9, 1, pa.Table.from_pylist(rows, schema=SCHEMA))  # of the attempt that was superseded
    assert main([str(run)]) == 0


def test_the_made_up_run_is_counted_as_the_loop_would(run: Path) -> None:
    report = check_coverage(run, P, SAMPLES, staleness=1, due=STEPS)
    assert report.exact and (report.steps, report.replaced) == (STEPS, 1)
