"""Completions are found as a plain loop over all rows finds them, and only what a query needs is read."""

import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from many_completions import TOKENS, write_many
from places import ROOT
from whole_run import write_run

from openrs_ray.data.completions import Decoder
from openrs_ray.errors import RunError, UserError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.report import completion_index, completion_reading
from openrs_ray.report.completion_tokens import pieces
from openrs_ray.report.completions import Query, find, one
from openrs_ray.run.completion_files import write_file
from openrs_ray.run.completions import current_rows

STEPS, PROBLEMS, SAMPLES = 30, 4, 5
KEY = ("step", "attempt", "position", "sample")
NOT_READ = {"token_ids", "logprobs", "sampled", "versions"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_many(folder, STEPS, PROBLEMS, SAMPLES)
    write_many(folder, 3, 2, 2, "evaluation", visits=1)
    return folder


def plain(run: Path, query: Query) -> list[dict[str, Any]]:
    """All rows that a query finds, in its order, by a loop over every row."""
    rows = [row for row in current_rows(run, query.phase).to_pylist() if passes(row, query)]
    newest = list(reversed(rows))
    judged = [row for row in newest if row["reward"] is not None]
    match query.order:
        case "best":
            return sorted(judged, key=lambda row: -row["reward"])
        case "worst":
            return sorted(judged, key=lambda row: row["reward"])
        case "longest":
            return sorted(newest, key=lambda row: -row["length"])
        case "shortest":
            return sorted(newest, key=lambda row: row["length"])
        case "most_changed":
            return changed(rows)
    return rows


def passes(row: dict[str, Any], query: Query) -> bool:
    bounds = [("step", query.steps), ("reward", query.reward), ("length", query.length)]
    return (
        all(b is None or (row[name] is not None and b[0] <= row[name] <= b[1]) for name, b in bounds)
        and (not query.status or row["status"] in query.status)
        and query.problem in (None, row["problem_index"])
        and query.task in (None, row["task"] or "")
        and (query.text or "").lower() in (row["problem"] + "\0" + row["text"]).lower()
    )


def changed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rewards: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["reward"] is not None:
            rewards[row["problem_index"]][row["step"]].append(row["reward"])
    moved = {}
    for problem, steps in rewards.items():
        first, last = steps[min(steps)], steps[max(steps)]
        if len(steps) > 1:
            moved[problem] = abs(sum(last) / len(last) - sum(first) / len(first))
    order = sorted(moved, key=lambda problem: (-moved[problem], problem))
    return [row for problem in order for row in rows if row["problem_index"] == problem]


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(steps=(3, 7)),
        Query(status=("timeout", "no_answer"), order="longest"),
        Query(reward=(0.5, 2.5), length=(100, 900), order="shortest"),
        Query(problem=17, order="step"),
        Query(text="WORD7", order="worst"),
        Query(text="is 3 plus"),
        Query(text="no such text"),
        Query(text=".*"),
        Query(task=""),
        Query(task="other"),
        Query(order="best"),
        Query(order="worst", steps=(STEPS, STEPS)),
        Query(order="most_changed"),
        Query(order="most_changed", steps=(4, 4)),
        Query(order="most_changed", steps=(99, 99)),
        Query(phase="evaluation", order="most_changed"),
        Query(phase="replaced"),
        Query(status=("odd",)),
    ],
    ids=str,
)
def test_a_query_finds_what_a_loop_over_all_rows_finds(run: Path, query: Query) -> None:
    expected = plain(run, query)
    found = [find(run, query, offset, 7) for offset in range(0, max(len(expected), 1), 7)]
    assert {page.total for page in found} == {len(expected)}
    rows = [row for page in found for row in page.rows]
    assert [[row[name] for name in KEY] for row in rows] == [[row[name] for name in KEY] for row in expected]
    for row, full in zip(rows, expected, strict=True):
        assert row == {name: full[name] for name in full if name not in NOT_READ} | {"rewards": dict(full["rewards"])}


def test_what_a_resume_superseded_is_left_out_and_several_turns_are_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    expected = current_rows(run)
    assert find(run, Query(), 0, 1000).total == len(expected)
    assert {(row["step"], row["attempt"]) for row in find(run, Query(steps=(2, 3)), 0, 99).rows} == {(2, 1), (3, 2)}
    assert {row["step"] for row in find(run, Query(phase="replaced"), 0, 99).rows} == {4}
    (full,) = [r for r in expected.to_pylist() if (r["step"], r["position"], r["sample"]) == (3, 6, 2)]
    tokens = one(run, "train", 3, 2, 6, 2)["tokens"]
    assert tokens["id"] == full["token_ids"] and tokens["sampled"] == full["sampled"]
    given = [place for place, own in enumerate(full["sampled"]) if not own]
    assert len(given) == 5
    for place in range(len(full["token_ids"])):
        hidden = place in given
        assert tokens["logprob"][place] == (None if hidden else full["logprobs"][place])
        assert tokens["advantage"][place] == (None if hidden else full["advantage"])
        assert (tokens["version"][place] is None) == hidden
    with pytest.raises(UserError, match="no completion train step 3 attempt 1 position 6 sample 2"):
        one(run, "train", 3, 1, 6, 2)


def test_a_completion_has_its_tokens(run: Path) -> None:
    found = one(run, "train", 5, 1, 17, 3, make_tokenizer())
    (row,) = [row for row in find(run, Query(steps=(5, 5)), 0, 99).rows if (row["position"], row["sample"]) == (17, 3)]
    tokens = found.pop("tokens")
    assert found == row
    assert {name: len(values) for name, values in tokens.items()} == dict.fromkeys(
        ("id", "text", "logprob", "advantage", "version", "sampled"), TOKENS
    )
    assert tokens["version"] == [0] * 5 + [1] * 7 and tokens["logprob"] == [-0.25] * TOKENS
    assert "".join(tokens["text"]) == make_tokenizer().decode(tokens["id"])
    assert one(run, "train", 5, 1, 17, 3)["tokens"]["text"] == [None] * TOKENS


def test_pieces_of_tokens_are_the_text_and_a_character_of_several_tokens_is_whole() -> None:
    """With a byte-level tokenizer without merges, as that of a model is for rare characters: a token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(alphabet)}, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    decoder = Decoder(library, None, light=True)
    for text in ("é is 数 or \U0001f642, too", "\N{REPLACEMENT CHARACTER} is one, too"):
        ids = library.encode(text).ids
        found = list(pieces(ids, decoder))
        assert len(found) == len(ids) == len(text.encode()) and "".join(found) == text
    ids = library.encode("é is 数 or \U0001f642").ids
    assert [piece for piece in pieces(ids, decoder) if piece] == list("é is 数 or \U0001f642")
    assert list(pieces(ids[:1], decoder)) == ["\N{REPLACEMENT CHARACTER}"], "cut within a character"


class Recorder(pq.ParquetFile):
    """Notes which columns of which rows are read."""

    reads: ClassVar[list[tuple[str, tuple[str, ...]]]] = []

    def __init__(self, source: Path, **options: Any) -> None:
        super().__init__(source, **options)
        self.name = source.name

    def read(self, columns: list[str]) -> pa.Table:  # type: ignore[override]
        self.reads.append((self.name, tuple(columns)))
        return super().read(columns)

    def read_row_groups(self, groups: list[int], columns: list[str]) -> pa.Table:  # type: ignore[override]
        self.reads.append((f"{self.name}:{groups}", tuple(columns)))
        return super().read_row_groups(groups, columns)


def test_only_what_a_query_needs_is_read_and_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_many(tmp_path, 40, PROBLEMS, SAMPLES)
    reads: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(Recorder, "reads", reads)
    monkeypatch.setattr(completion_reading.pq, "ParquetFile", Recorder)
    index = ("task", "problem_index", "status", "reward", "length")
    find(tmp_path, Query(problem=PROBLEMS * 7), 1, 4)
    assert sorted(reads[:-1]) == sorted((file.name, index) for file in (tmp_path / "completions").iterdir())
    assert "train-step-000007" in reads[-1][0] and not NOT_READ & {*reads[-1][1]}
    reads.clear()
    assert find(tmp_path, Query(order="best"), 0, 5).total > 5
    assert 1 <= len(reads) <= 5 and all(len(columns) > 9 for _, columns in reads), "only the files of the page"
    reads.clear()
    assert find(tmp_path, Query(text="word1", steps=(1, 9)), 0, 3).total
    assert [columns for _, columns in reads].count(("problem", "text")) == 9, "texts of the steps asked for"
    reads.clear()
    find(tmp_path, Query(text="word1", steps=(1, 9)), 3, 3)
    assert all(columns != ("problem", "text") for _, columns in reads), "the next page knows the result"
    reads.clear()
    time.sleep(0.02)
    write_file(tmp_path, "train", 41, 1, current_rows(tmp_path).slice(0, 20))
    assert find(tmp_path, Query(steps=(41, 41)), 0, 1).total == 20, "a step that was written meanwhile"
    find(tmp_path, Query(order="best"), 0, 1)
    assert [columns for _, columns in reads].count(index) == 1, "of the index only the new file is read"


def test_the_index_of_many_files_is_kept_for_the_next_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion_index, "_WORTH_KEEPING", 5)
    write_many(tmp_path, 6, PROBLEMS, SAMPLES)
    reads: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(Recorder, "reads", reads)
    monkeypatch.setattr(completion_reading.pq, "ParquetFile", Recorder)

    def another_process(query: Query) -> tuple[int, list[Any]]:
        completion_index.index_of.cache_clear()
        reads.clear()
        page = find(tmp_path, query, 0, 3)
        return len(reads), [[row[name] for name in KEY] for row in page.rows]

    best = Query(order="best")
    assert another_process(Query(steps=(2, 2)))[0] == 1 + 1, "only the step's file: its index, then its rows"
    (kept,) = [tmp_path / "index" / "completions-train.npz"]
    assert not kept.exists()
    read, first = another_process(best)
    assert read >= 6 and kept.exists()
    assert another_process(best) == (read - 6, first), "only the rows that are shown"
    write_file(tmp_path, "train", 7, 1, current_rows(tmp_path).slice(0, 20))
    assert another_process(best)[0] <= 1 + 3, "the new file, and the rows"
    for harm in (b"", kept.read_bytes()[:-50], b"no archive"):
        kept.write_bytes(harm)
        assert another_process(best)[0] >= 7 and another_process(best)[0] <= 3, "made anew"
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("in the way")
    assert another_process(best)[0] >= 7, "where it cannot be written"


def test_of_a_large_step_only_a_part_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_many(tmp_path, 1, 300, 10)
    reads: list[tuple[str, tuple[str, ...]]] = []
    monkeypatch.setattr(Recorder, "reads", reads)
    monkeypatch.setattr(completion_reading.pq, "ParquetFile", Recorder)
    rows = find(tmp_path, Query(), 1500, 2).rows
    assert [(row["position"], row["sample"]) for row in rows] == [(150, 0), (150, 1)]
    assert reads[-1][0].endswith(":[1]"), "rows 1,024 to 2,047 of 3,000"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_many(tmp_path, 2, 2, 2)
    file = next((tmp_path / "completions").glob("train-step-000002*"))
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"train-step-000002.* cannot be read \("):
        find(tmp_path, Query())


def test_an_older_record_has_null_for_what_it_lacks(tmp_path: Path) -> None:
    write_many(tmp_path, 2, 2, 2)
    for file in sorted((tmp_path / "completions").iterdir())[:1]:
        table = pq.read_table(file).drop_columns(["prompt", "gold", "row", "task"])
        file.unlink()
        write_file(tmp_path, "train", 1, 1, table)
    older, newer = find(tmp_path, Query(), 3, 2).rows
    assert [older[name] for name in ("prompt", "gold", "row", "task")] == [None] * 4
    assert [newer[name] for name in ("prompt", "gold", "row", "task")] == [
        "<user>how much?<assistant>", ["42"], '{"level": 3}', "",
    ]  # fmt: skip
    assert find(tmp_path, Query(task=""), 0, 1).total == 8 and len(find(tmp_path, Query(text="WORD"), 0, 99).rows) == 8


BIG = """
import json, resource, sys, time
from pathlib import Path
from openrs_ray.report.completions import Query, find, one
run, took = Path(sys.argv[1]), {}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, query in {
    "first": Query(), "best": Query(order="best"), "worst": Query(order="worst", steps=(9000, 10000)),
    "timeouts": Query(status=("timeout",)), "changed": Query(order="most_changed"), "problem": Query(problem=17),
    "text": Query(text="word77 of"),
}.items():
    began = time.perf_counter()
    page = find(run, query, 100, 20)
    took[name] = time.perf_counter() - began
    assert len(page.rows) == 20
began = time.perf_counter()
one(run, "train", 9999, 1, page.rows[0]["position"] % 10 + 9998 * 10, 3)
took["one"] = time.perf_counter() - began
took["mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps(took))
"""


@pytest.mark.nightly
def test_a_million_completions_of_ten_thousand_steps_stay_quick(tmp_path: Path) -> None:
    """Bounds are several times what two cores took that others used, too."""
    write_many(tmp_path, 10_000, 10, 10, visits=100)
    ended = subprocess.run(
        [sys.executable, "-c", BIG, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    took = json.loads(ended.stdout)
    sys.stderr.write(f"{took}\n")
    bounds = {
        "first": 60,
        "text": 60,
        "changed": 5,
        "best": 3,
        "worst": 3,
        "timeouts": 3,
        "problem": 3,
        "one": 3,
        "mib": 400,
    }
    assert {name for name, value in took.items() if value > bounds[name]} == set(), took
