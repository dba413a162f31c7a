"""The Parquet record: nothing lost, nothing counted twice over kills and attempts."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openrs_ray.common.completion_columns import COMMON, row_json
from openrs_ray.data.completions import Decoder
from openrs_ray.errors import RunError
from openrs_ray.records import (
    Completion,
    Group,
    Problem,
    Rollout,
    SamplingSettings,
    Status,
    TokenLogprobs,
    Verdict,
    VersionSpan,
)
from openrs_ray.run.attempts import read_attempts, start_attempt
from openrs_ray.run.completion_files import write_file
from openrs_ray.run.completions import SCHEMA, CompletionRecord, current_rows, read_groups
from openrs_ray.run.coverage import check_coverage

PROBLEMS, SAMPLES = 3, 2


class Numbers:
    """Decodes token ids as their numbers."""

    def decode_batch(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool) -> list[str]:
        return [" ".join(map(str, ids)) for ids in sequences]


NUMBERS = Decoder(Numbers(), None, light=True)


def group(position: int, version: int = 0) -> Group:
    completions, verdicts = [], []
    for sample in range(SAMPLES):
        tokens = np.array([5, 9, 2 + sample], dtype=np.int32)
        logprobs = np.array([-0.25, -0.5, -0.75], dtype=np.float32)
        spans = (VersionSpan(version, 0, 2), VersionSpan(version + 1, 2, 3))
        completions.append(Rollout.of([Completion(position, sample, tokens, logprobs, "stop", spans, worker=1)]))
        if sample:
            verdicts.append(Verdict(Status.TIMEOUT, {}, None, seconds=5.0, detail="killed"))
        else:
            verdicts.append(Verdict(Status.CORRECT, {"accuracy": 1.0, "format": 0.5}, 2.5, answer="42", seconds=0.1))
    text = f"{position} + 1"
    problem = Problem(position % 7, text, (1, 2), ("42",), row={"question": text, "level": position, "note": None})
    sampling = SamplingSettings(0.7, 64, stage=1)
    return Group(position, problem, tuple(completions), tuple(verdicts), sampling=sampling)


def write(run: Path, step: int, attempt: int, phase: str = "train", positions: Sequence[int] | None = None) -> Path:
    positions = range((step - 1) * PROBLEMS, step * PROBLEMS) if positions is None else positions
    groups = [group(position, step - 1) for position in positions]
    texts = [[f"text {position} {sample}" for sample in range(SAMPLES)] for position in positions]
    advantages = np.tile([1.5, np.nan], (len(groups), 1)) if phase == "train" else None
    return CompletionRecord(run, NUMBERS).write(step, attempt, groups, texts, advantages, phase)  # type: ignore[arg-type]


def test_a_row_holds_what_happened_to_a_completion(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    path = write(tmp_path, 2, 1)
    assert "000002" in path.name and "001" in path.name
    judged, unjudged = current_rows(tmp_path).to_pylist()[:2]
    assert judged == {
        "task": "",
        "problem_index": 3,
        "sample": 0,
        "problem": "3 + 1",
        "prompt": "1 2",
        "gold": ["42"],
        "row": '{"level": 3}',
        "text": "text 3 0",
        "token_ids": [5, 9, 2],
        "length": 3,
        "finish_reason": "stop",
        "status": "correct",
        "answer": "42",
        "detail": "",
        "worker": 1,
        "step": 2,
        "attempt": 1,
        "phase": "train",
        "position": 3,
        "logprobs": [-0.25, -0.5, -0.75],
        "sampled": None,
        "reward": 2.5,
        "rewards": [("accuracy", 1.0), ("format", 0.5)],
        "versions": [{"version": 1, "start": 0, "end": 2}, {"version": 2, "start": 2, "end": 3}],
        "mean_logprob": -0.5,
        "advantage": 1.5,
        "check_seconds": 0.1,
        "temperature": 0.7,
        "max_completion_tokens": 64,
        "stage": 1,
        "learner_logprobs": None,
        "reference_logprobs": None,
        "entropies": None,
    }
    assert list(judged)[: len(COMMON)] == COMMON.names
    assert unjudged["reward"] is None and unjudged["advantage"] is None and unjudged["rewards"] == []
    assert unjudged["status"] == "timeout" and unjudged["detail"] == "killed"


def test_what_the_learner_computed_stands_beside_the_sampled_tokens_that_it_is_of(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    spans = (VersionSpan(0, 0, 2),)
    turn = Completion(0, 1, np.array([5, 9], np.int32), np.array([-0.25, -0.5], np.float32), "stop", spans, 0)
    several = Rollout.of([turn, [7, 7, 7], turn])
    whole = Rollout.of([replace(turn, sample=0)])
    verdicts = tuple(Verdict(Status.CORRECT, {"accuracy": reward}, reward) for reward in (1.0, 0.0))
    made = Group(0, Problem(0, "1 + 1", (1, 2), ("2",)), (whole, several), verdicts)
    values = np.array([-1, -2, -3, -4], np.float32)
    scored = {(1, 1): TokenLogprobs(values, 2 * values)}
    CompletionRecord(tmp_path).write(
        1, 1, [replace(made, position=1), made], [["", ""]] * 2, np.zeros((2, 2)), scored=scored
    )
    rows = current_rows(tmp_path, columns=["learner_logprobs", "reference_logprobs"]).to_pylist()
    assert rows[:3] == [{"learner_logprobs": None, "reference_logprobs": None}] * 3
    assert rows[3]["learner_logprobs"] == [-1, -2, 0, 0, 0, -3, -4]
    assert rows[3]["reference_logprobs"] == [-2, -4, 0, 0, 0, -6, -8]


def row_by_row(step: int, groups: Sequence[Group], texts: Sequence[Sequence[str]], advantages: Any) -> pa.Table:
    """The table as pyarrow makes it of one dict per completion."""
    rows = []
    for number, group in enumerate(groups):
        for index, (rollout, verdict) in enumerate(zip(group.rollouts, group.verdicts, strict=True)):
            advantage = np.nan if advantages is None else float(advantages[number][index])
            mean = float(rollout.logprobs[rollout.sampled].mean())
            rows.append(
                {
                    "step": step, "attempt": 3, "phase": "train", "position": rollout.position,
                    "problem_index": group.problem.index, "sample": rollout.sample, "problem": group.problem.text,
                    "token_ids": rollout.token_ids.tolist(), "logprobs": rollout.logprobs.tolist(),
                    "sampled": None if rollout.sampled.all() else rollout.sampled.tolist(),
                    "text": texts[number][index], "reward": verdict.reward, "rewards": list(verdict.rewards.items()),
                    "status": str(verdict.status), "answer": verdict.answer, "detail": verdict.detail,
                    "finish_reason": rollout.finish_reason, "length": int(rollout.sampled.sum()),
                    "versions": [{"version": s.version, "start": s.start, "end": s.end} for s in rollout.versions],
                    "mean_logprob": mean if np.isfinite(mean) else None,
                    "advantage": advantage if np.isfinite(advantage) else None,
                    "worker": rollout.worker, "check_seconds": verdict.seconds, "task": group.problem.task,
                    "gold": list(group.problem.gold),
                }
            )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


@pytest.mark.parametrize("case", ["one turn", "turns", "tasks", "evaluation", "not finite"])
def test_columns_are_those_of_rows_made_one_by_one(tmp_path: Path, case: str) -> None:
    groups, texts, advantages = sampled(5, 3, 40)
    advantages[1, 2] = np.nan
    given: Any = None if case == "evaluation" else advantages
    if case == "turns":
        marks = [np.arange(len(r.token_ids)) % 4 < 3 if r.sample != 1 else r.sampled for r in groups[2].rollouts]
        several = tuple(replace(r, sampled=mark) for r, mark in zip(groups[2].rollouts, marks, strict=True))
        spans = (VersionSpan(0, 0, 3), VersionSpan(1, 4, 7))
        groups[2] = replace(groups[2], rollouts=(replace(several[0], versions=spans), *several[1:]))
    if case == "tasks":
        groups[3] = replace(groups[3], problem=replace(groups[3].problem, task="sums"))
        unjudged = Verdict(Status.TIMEOUT, {}, None, detail="é")
        groups[0] = replace(groups[0], verdicts=(unjudged, *groups[0].verdicts[1:]))
    if case == "not finite":
        groups[4].rollouts[0].logprobs[1] = -np.inf
    path = CompletionRecord(tmp_path).write(1, 3, groups, texts, given)
    assert pq.read_table(path).equals(row_by_row(1, groups, texts, given)), "value by value, with its type"


def test_a_row_of_the_data_becomes_json_of_bounded_size() -> None:
    row = {"problem": "1 + 1", "level": 3, "empty": None, "none": float("nan"), "tests": ["é" * 10, {"x": 2.5}],
           "when": date(2025, 1, 2), "bytes": b"ab", "long": "y" * 5000}  # fmt: skip
    found = json.loads(row_json(row, "1 + 1") or "")
    assert found.pop("long") == "y" * 2000 + "... (5,000 characters)"
    assert found == {"level": 3, "none": "nan", "tests": ["é" * 10, {"x": 2.5}], "when": "2025-01-02", "bytes": "b'ab'"}
    assert row_json({"problem": "1 + 1", "empty": None}, "1 + 1") is None


def as_older(path: Path, tasks: bool = False) -> None:
    """Make a file what an older version would have written, without the columns that are new."""
    dropped = ["prompt", "gold", "row", "sampled", *([] if tasks else ["task"])]
    table = pq.read_table(path).drop_columns(dropped)
    path.unlink()
    start, attempt = (int(part) for part in re.findall(r"-(\d{3,6})", path.name)[:2])
    write_file(path.parent.parent, "train", start, attempt, table.select(sorted(table.column_names)))


def test_the_record_of_an_older_version_is_read_and_trained_on_beside_newer_files(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    as_older(write(tmp_path, 1, 1))
    write(tmp_path, 2, 1)
    rows = current_rows(tmp_path)
    assert rows.schema == SCHEMA and rows["text"].null_count == 0
    for name in ("task", "prompt", "gold", "row"):
        values = rows[name].to_pylist()
        assert values[:6] == [None] * 6 and None not in values[6:]
    assert current_rows(tmp_path, columns=["gold", "step"])["gold"].to_pylist() == [None] * 6 + [["42"]] * 6
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES).exact
    problems = [group(index).problem for index in range(7)]
    assert [g.position for g in read_groups(tmp_path, 1, problems)] == [0, 1, 2]


def test_a_step_can_be_trained_again_from_its_record(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    write(tmp_path, 2, 1, positions=range(4, 2, -1))
    start_attempt(tmp_path, 1)
    write(tmp_path, 2, 2, positions=range(5, 3, -1))
    problems = [group(index).problem for index in range(7)]
    found = read_groups(tmp_path, 2, problems)
    assert [g.position for g in found] == [5, 4], "of the attempt that counts, in the order of the step"
    for read, original in zip(found, (group(5, 1), group(4, 1)), strict=True):
        assert read.problem == original.problem and read.verdicts == original.verdicts
        assert read.sampling == original.sampling, "with the temperature that it is learned at"
        np.testing.assert_array_equal(read.rewards(), original.rewards())
        for ours, theirs in zip(read.rollouts, original.rollouts, strict=True):
            assert ours.versions == theirs.versions and ours.finish_reason == theirs.finish_reason
            assert (ours.token_ids == theirs.token_ids).all() and (ours.logprobs == theirs.logprobs).all()
            assert ours.logprobs.dtype == np.float32 and ours.token_ids.dtype == np.int32
    with pytest.raises(RunError, match="does not hold step 3"):
        read_groups(tmp_path, 3, problems)


def test_a_rollout_of_several_turns_comes_back_as_it_was(tmp_path: Path) -> None:
    turns = [
        Completion(3, sample, np.array([5, 9], np.int32), np.array([-0.1, -0.7], np.float32), "stop",
                   (VersionSpan(1, 0, 1), VersionSpan(2, 1, 2)), 0)
        for sample in range(SAMPLES)
    ]  # fmt: skip
    rollouts = (Rollout.of([turns[0], (7, 8, 9), turns[0]]), Rollout.of([turns[1]]))
    original = replace(group(3), rollouts=rollouts)
    start_attempt(tmp_path, 0)
    CompletionRecord(tmp_path).write(2, 1, [original], [["", ""]], [[1.0, -1.0]])
    assert current_rows(tmp_path)["sampled"].to_pylist() == [[True] * 2 + [False] * 3 + [True] * 2, None]
    assert current_rows(tmp_path)["length"].to_pylist() == [4, 2]
    assert current_rows(tmp_path)["mean_logprob"].to_pylist() == pytest.approx([-0.4, -0.4])
    (read,) = read_groups(tmp_path, 2, [group(index).problem for index in range(7)])
    for ours, theirs in zip(read.rollouts, rollouts, strict=True):
        for name in ("token_ids", "sampled", "logprobs"):
            mine, its = getattr(ours, name), getattr(theirs, name)
            assert mine.dtype == its.dtype and mine.tobytes() == its.tobytes()
        assert (ours.versions, ours.finish_reason, ours.worker) == (
            theirs.versions,
            theirs.finish_reason,
            theirs.worker,
        )
    assert rollouts[0].versions == tuple(VersionSpan(*span) for span in ((1, 0, 1), (2, 1, 2), (1, 5, 6), (2, 6, 7)))


def test_rows_after_the_resumed_checkpoint_are_superseded(tmp_path: Path) -> None:
    assert start_attempt(tmp_path, 0) == 1
    for step in (1, 2, 3, 4):
        write(tmp_path, step, 1)
    assert start_attempt(tmp_path, 2) == 2  # killed after step 4; the checkpoint was of step 2
    write(tmp_path, 3, 2)
    assert start_attempt(tmp_path, 2) == 3  # killed again before a new checkpoint
    write(tmp_path, 3, 3)
    write(tmp_path, 4, 3)
    rows = current_rows(tmp_path, columns=["step", "attempt"]).to_pylist()
    assert {(row["step"], row["attempt"]) for row in rows} == {(1, 1), (2, 1), (3, 3), (4, 3)}
    report = check_coverage(tmp_path, PROBLEMS, SAMPLES)
    assert report.exact and report.steps == 4 and report.completions == 4 * PROBLEMS * SAMPLES


def test_steps_that_were_not_repeated_yet_do_not_count(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    for step in (1, 2, 3):
        write(tmp_path, step, 1)
    start_attempt(tmp_path, 1)
    report = check_coverage(tmp_path, PROBLEMS, SAMPLES)
    assert report.exact and report.steps == 1


def test_lost_doubled_and_unexpected_positions_are_named(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    write(tmp_path, 1, 1)
    write(tmp_path, 2, 1, positions=range(2, 5))  # 2 again, 5 never
    write(tmp_path, 3, 1, positions=range(6, 10))  # 9 belongs to step 4
    report = check_coverage(tmp_path, PROBLEMS, SAMPLES)
    assert (report.lost, report.doubled, report.unexpected) == ((5,), (2,), (9,))
    assert not report.exact
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES, staleness=1).lost == (5,), "at most the last P may be under way"
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES + 1).lost == tuple(range(10))


def test_a_step_counted_twice_without_a_resume_is_seen(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    write(tmp_path, 1, 1)
    start_attempt(tmp_path, 1)
    write(tmp_path, 1, 2)
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES).doubled == (0, 1, 2)


def test_replaced_groups_are_used_positions_that_no_step_trained_on(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    write(tmp_path, 1, 1, "replaced", range(1, 3))
    write(tmp_path, 1, 1, positions=[0, 3, 4])
    write(tmp_path, 2, 1, positions=[5, 6, 7])
    write(tmp_path, 3, 1, "replaced", range(8, 11))  # killed before the others of step 3 were written
    report = check_coverage(tmp_path, PROBLEMS, SAMPLES)
    assert report.exact and (report.steps, report.replaced) == (2, 2)
    assert report.completions == 2 * PROBLEMS * SAMPLES, "trained on"
    assert [g.position for g in read_groups(tmp_path, 1, [group(index).problem for index in range(7)])] == [0, 3, 4]
    assert {row["advantage"] for row in current_rows(tmp_path, "replaced").to_pylist()} == {None}
    write(tmp_path, 3, 1, positions=[2, 11, 12])
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES).doubled == (2,), "both replaced and trained on"
    next((tmp_path / "completions").glob("replaced-step-000003*")).unlink()
    report = check_coverage(tmp_path, PROBLEMS, SAMPLES)
    assert report.lost == (8, 9, 10) and report.unexpected == (11, 12)


def test_positions_drawn_again_after_a_resume_may_be_under_way(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    write(tmp_path, 1, 1, positions=[0, 1, 8])
    write(tmp_path, 2, 1, positions=[2, 3, 7])
    start_attempt(tmp_path, 2)  # 4 to 6 were being sampled, and are drawn again
    write(tmp_path, 3, 2, positions=[9, 10, 11])
    write(tmp_path, 4, 2, positions=[12, 13, 14])
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES, staleness=2).exact
    write(tmp_path, 5, 2, positions=[15, 16, 17])
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES, staleness=2).lost == (4, 5, 6), "due in step 5"


def test_an_evaluation_is_kept_apart_and_a_repeated_one_counts_once(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    write(tmp_path, 0, 1, "evaluation", range(4))
    start_attempt(tmp_path, 0)  # killed before the first checkpoint: version 0 is evaluated once more
    write(tmp_path, 0, 2, "evaluation", range(4))
    write(tmp_path, 1, 2)
    rows = current_rows(tmp_path, "evaluation").to_pylist()
    assert {row["attempt"] for row in rows} == {2} and len(rows) == 4 * SAMPLES
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES).exact


def test_leftovers_and_torn_lines_do_not_count(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    path = write(tmp_path, 1, 1)
    half = path.read_bytes()[:200]
    (tmp_path / "completions" / "train-step-000002-attempt-001.parquet.tmp").write_bytes(half)
    with (tmp_path / "attempts.jsonl").open("a") as file:
        file.write('{"attempt": 2, "from_st')
    assert check_coverage(tmp_path, PROBLEMS, SAMPLES).completions == PROBLEMS * SAMPLES
    assert start_attempt(tmp_path, 1) == 2
    assert read_attempts(tmp_path) == {1: 0, 2: 1}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(memoryview(content)[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError):
        write(tmp_path, 1, 1)
    assert list((tmp_path / "completions").iterdir()) == []


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run's folder, and its file of a step of as many completions as the paper's."""
    folder = tmp_path_factory.mktemp("run")
    start_attempt(folder, 0)
    CompletionRecord(folder).write(1, 1, *sampled(12, 6, 200))
    return folder, next((folder / "completions").iterdir())


def sampled(problems: int, samples: int, tokens: int) -> tuple[list[Group], list[list[str]], np.ndarray]:
    """A step of made-up completions of up to so many tokens, as `CompletionRecord.write` takes it."""
    rng = np.random.default_rng(0)
    groups = []
    for position in range(problems):
        lengths = [int(length) for length in rng.integers(tokens // 4, tokens, samples)]
        completions = tuple(
            Rollout(
                position,
                sample,
                rng.integers(0, 151_000, length).astype(np.int32),
                np.ones(length, dtype=np.bool_),
                -rng.exponential(0.4, length).astype(np.float32),
                "stop",
                (VersionSpan(0, 0, length),),
                0,
            )
            for sample, length in enumerate(lengths)
        )
        verdicts = tuple(
            Verdict(Status.CORRECT, {"accuracy": 1.0}, float(reward), "42") for reward in rng.normal(size=samples)
        )
        groups.append(Group(position, Problem(position, f"{position} + 1", (1, 2), ("42",)), completions, verdicts))
    texts = [[f"text {position} {sample} " * 20 for sample in range(samples)] for position in range(problems)]
    return groups, texts, rng.normal(size=(problems, samples))


def test_no_flipped_bit_of_a_record_goes_unnoticed(written: tuple[Path, Path], tmp_path: Path) -> None:
    """With and without the file's own checksum, which the pages' do not make superfluous: headers and footer have none."""
    folder, path = written
    original, problems = path.read_bytes(), [group.problem for group in sampled(12, 6, 200)[0]]
    whole = read_groups(folder, 1, problems)
    start_attempt(tmp_path, 0)
    (tmp_path / "completions").mkdir()
    copy = tmp_path / "completions" / path.name
    bits = np.random.default_rng(1).choice(len(original) * 8, size=250, replace=False)
    for bit in map(int, bits):
        content = bytearray(original)
        content[bit // 8] ^= 1 << bit % 8
        copy.write_bytes(content)
        with pytest.raises(RunError, match="does not have the content that was written") as error:
            read_groups(tmp_path, 1, problems)
        assert "\n" not in str(error.value) and path.name in str(error.value)
    copy.write_bytes(original)
    for ours, theirs in zip(read_groups(tmp_path, 1, problems), whole, strict=True):
        for one, other in zip(ours.rollouts, theirs.rollouts, strict=True):
            assert (one.token_ids == other.token_ids).all() and (one.logprobs == other.logprobs).all()


def test_other_readers_see_most_flipped_bits_by_the_pages_checksums(written: tuple[Path, Path]) -> None:
    _, path = written
    original, found = path.read_bytes(), pq.read_table(path, page_checksum_verification=True)
    silent = 0
    for bit in np.random.default_rng(2).choice(len(original) * 8, size=100, replace=False):
        content = bytearray(original)
        content[bit // 8] ^= 1 << int(bit) % 8
        try:
            read = pq.read_table(pa.BufferReader(bytes(content)), page_checksum_verification=True)
            silent += not read.equals(found)
        except (OSError, ValueError, pa.ArrowException):
            pass
    assert silent <= 3


@pytest.mark.parametrize("harm", ["cut", "emptied", "no Parquet"])
def test_every_error_of_a_file_without_a_checksum_is_one_sentence(
    written: tuple[Path, Path], tmp_path: Path, harm: str
) -> None:
    content = written[1].read_bytes()
    start_attempt(tmp_path, 0)
    (tmp_path / "completions").mkdir()
    path = tmp_path / "completions" / "train-step-000001-attempt-001.parquet"  # as older versions named it
    path.write_bytes({"cut": content[:-20], "emptied": b"", "no Parquet": b"PAR1 this is not PAR1"}[harm])
    with pytest.raises(RunError, match=r"train-step-000001-attempt-001\.parquet cannot be read \(") as error:
        current_rows(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(RunError, match="has no checksum, so step 1 is not trained again: go on with --resume"):
        read_groups(tmp_path, 1, [])


def test_a_step_that_is_there_twice_or_of_other_problems_is_not_trained_again(tmp_path: Path) -> None:
    start_attempt(tmp_path, 0)
    path = write(tmp_path, 1, 1)
    problems = [group(index).problem for index in range(7)]
    with pytest.raises(RunError, match=r"step 1 .* another problem 0"):
        read_groups(tmp_path, 1, [problems[6], *problems[1:]])
    write(tmp_path, 1, 1, positions=[0, 1, 3])
    with pytest.raises(RunError, match=rf"the record holds step 1 twice, in .*{path.name}"):
        read_groups(tmp_path, 1, problems)


def test_an_empty_run_has_no_rows(tmp_path: Path) -> None:
    assert current_rows(tmp_path).num_rows == 0
    report = check_coverage(tmp_path, PROBLEMS, SAMPLES)
    assert report.exact and report.steps == 0
