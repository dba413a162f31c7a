"""Curation without engines: what is the same text, what each stage drops and why, what is done again after a kill."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from places import ROOT
from shared_data import shared_file

from openrs_ray.config.data import Data
from openrs_ray.curation import fates, report
from openrs_ray.curation.fates import Candidate, Fate, Reply, judged_fate, mix_counts, solved_fate, user_turn
from openrs_ray.curation.inputs import load_inputs, prompts
from openrs_ray.curation.pipeline import Curation, Question, Tell
from openrs_ray.curation.recipe import Judged, Mix, Recipe, Solved, load_recipe
from openrs_ray.curation.store import Counts, CurationStore
from openrs_ray.curation.texts import OverlapIndex
from openrs_ray.data.problems import load_problems
from openrs_ray.data.prompts import tokenize_prompts
from openrs_ray.data.rows import read_rows
from openrs_ray.data.texts import letters_key, same_text_key, words
from openrs_ray.errors import RunError, UserError
from openrs_ray.models.toy.tokenizer import make_tokenizer
from openrs_ray.records import Status

RECIPES = ROOT / "launch" / "recipes"
SUITES = ("aime24", "amc23", "math500", "minerva", "olympiadbench")


def candidate(
    row: int, problem: str = "", answer: str = "1", source: str = "a", solution: str | None = None
) -> Candidate:
    return Candidate(row, source, problem or f"problem {row}", solution, (answer,))


# Texts


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (r"Find $x$ if $\left( x \right) = 1$.", r"find x  if $(x)=1.$", True),
        (r"Evaluate $\log_8 2$.", r"Evaluate $\log_82$.", True),
        ("$n$ is 1.5, what?", "n is 1.5 what", True),
        ("What is 1.5?", "What is 15?", False),
        ("Find 2x + 1", "Find 2x - 1", False),
        (r"\arcsin (-1)", r"\arcsin 1", False),
        ("What is 4! now?", "What is 4 now?", False),
        (r"a \leftarrow b", r"a arrow b", False),
    ],
)
def test_what_counts_as_the_same_text(first: str, second: str, same: bool) -> None:
    assert (same_text_key(first) == same_text_key(second)) is same


def test_letters_and_digits() -> None:
    assert words("Let $x_1 = \\frac{ÉTÉ}{2}$, ｘ=3") == ["let", "x", "1", "frac", "été", "2", "x", "3"]
    assert letters_key("AB-c 1") == "abc1" == letters_key("a(bc) 1")


def numbered(first: int, last: int) -> str:
    return " ".join(f"w{number}" for number in range(first, last + 1))


def test_words_in_a_row() -> None:
    index = OverlapIndex({"long": [numbered(1, 20)], "short": [numbered(31, 39), "what is two plus two"]}, 13, 8, 10)
    texts = [
        f"before {numbered(4, 16)} behind",  # 13 words of the long one
        f"before {numbered(4, 15)} behind",  # 12
        f"{numbered(1, 12)} other {numbered(13, 20)}",  # all of them, but 12 in a row
        f"x {numbered(31, 39)} y",  # all 9 words of a shorter one
        f"x {numbered(31, 38)} y",  # 8 of its 9
        "he asks what is two plus two",  # of fewer than 8 words: not by words
        "What is two + plus two?",  # but as a whole
    ]
    reasons = index.overlaps(texts)
    assert reasons[0].startswith("words of long: 'w4 w5") and reasons[0].endswith("w16' stands in its problem 1")
    assert reasons[3].startswith("words of short: 'w31") and reasons[6] == "same text as short: its problem 2"
    assert [bool(reason) for reason in reasons] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize(("copies", "found"), [(10, True), (11, False)])
def test_a_phrase_that_everybody_uses_is_no_overlap(copies: int, found: bool) -> None:
    index = OverlapIndex({"suite": [f"torus {numbered(1, 13)}"]}, 13, 8, 10)
    texts = [f"text {number} {numbered(1, 13)} {numbered(1, 13)}" for number in range(copies)]
    assert [bool(reason) for reason in index.overlaps(texts)] == [found] * copies
    copied = index.overlaps([f"Torus, {numbered(1, 13)}."] * copies)
    assert set(copied) == {"same text as suite: its problem 1"}, "a whole problem is found however often it is there"


# Stages


def test_boxed() -> None:
    solutions = [r"so \boxed{\frac{1}{2}}.", "so 4", r"so \boxed{4", r"so \boxed{ }", None, r"\fbox{3}"]
    found = fates.boxed([candidate(row, solution=text) for row, text in enumerate(solutions)])
    assert [fate.kept for fate in found] == [True, False, False, False, False, True]
    assert {fate.reason.partition(":")[0] for fate in found if not fate.kept} == {"no box"}


def test_duplicates() -> None:
    found = fates.duplicates(
        [
            candidate(3, "What is $x$?", "2"),
            candidate(5, "other"),
            candidate(7, "what is x", "2"),
            candidate(9, "What is x?", "5"),
        ]
    )
    assert found == [
        Fate(True),
        Fate(True),
        Fate(False, "duplicate: of row 3 (a)"),
        Fate(False, "duplicate: of row 3 (a)"),
    ]


def test_a_mix_is_exact_and_its_own() -> None:
    rows = [candidate(row, source="ab"[row % 2]) for row in range(200)]

    def drawn(counts: dict[str, int], seed: int = 42) -> list[int]:
        return [c.row for c, fate in zip(rows, fates.mix(rows, Mix(counts=counts), seed), strict=True) if fate.kept]

    both = drawn({"a": 30, "b": 10})
    assert Counter(row % 2 for row in both) == {0: 30, 1: 10} and both == sorted(both)
    assert both == drawn({"b": 10, "a": 30}) and both != drawn({"a": 30, "b": 10}, seed=43)
    assert [row for row in both if row % 2 == 0] == drawn({"a": 30}), "another source changes nothing for this one"
    assert set(drawn({"a": 20})) < set(drawn({"a": 30}))
    even = drawn({"a": 30, "b": 30})
    assert {row // 2 for row in even if row % 2} != {row // 2 for row in even if row % 2 == 0}, "a draw for each source"
    assert drawn({"a": 100}) == list(range(0, 200, 2))
    with pytest.raises(UserError, match="asks for 101 problems of b but 100 are left"):
        drawn({"a": 1, "b": 101})


@pytest.mark.parametrize(
    ("fractions", "total", "expected"),
    [
        ({"a": 0.5, "b": 0.3, "c": 0.2}, 10, {"a": 5, "b": 3, "c": 2}),
        ({"a": 0.29, "b": 0.71}, 100, {"a": 29, "b": 71}),  # 0.29 * 100 is 28.999999999999996
        ({"a": 0.45, "b": 0.35, "c": 0.2}, 7, {"a": 3, "b": 3, "c": 1}),  # 3.15, 2.45, 1.4: the one left goes to b
        ({"a": 3 / 7, "b": 3 / 7, "c": 1 / 7}, 7000, {"a": 3000, "b": 3000, "c": 1000}),
    ],
)
def test_fractions_of_a_mix(fractions: dict[str, float], total: int, expected: dict[str, int]) -> None:
    assert mix_counts(Mix(fractions=fractions, total=total)) == expected


C, W, N, T, E, U = Status.CORRECT, Status.WRONG, Status.NO_ANSWER, Status.TIMEOUT, Status.ERROR, Status.UNPARSEABLE_GOLD


@pytest.mark.parametrize(
    ("solved_from", "statuses", "expected"),
    [
        (1, (W, N, C, W), "solved: 1 of 4 correct"),
        (1, (W, N, W, W), ""),
        (3, (C, C, W, W), ""),
        (3, (C, C, T, W), "unclear: timeout, 2 of 4 correct"),
        (3, (C, T, W, W), ""),  # could not have been solved
        (3, (C, C, C, T), "solved: 3 of 4 correct"),
        (1, (T, E, W, W), "unclear: error, timeout, 0 of 4 correct"),
        (2, (U, U, U, U), "unclear: unparseable_gold, 0 of 4 correct"),
    ],
)
def test_what_counts_as_solved(solved_from: int, statuses: tuple[Status, ...], expected: str) -> None:
    for way in ("keep", "drop"):
        stage = Solved(model="toy", max_tokens=8, samples=4, solved_from=solved_from, unclear=way)
        fate = solved_fate(stage, statuses)
        assert fate.reason == expected
        assert fate.kept is (not expected or (expected.startswith("unclear") and way == "keep"))


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((W, W, W, W, C), "rarely solved: 1 of 5 correct"),
        ((C, W, W, W, C), ""),
        ((C, C, C, W, C), "solved: 4 of 5 correct"),
        ((C, T, W, W, W), "unclear: timeout, 1 of 5 correct"),
        ((W, T, W, W, W), "rarely solved: 0 of 5 correct"),  # it could not have been two
        ((C, C, T, W, W), ""),
        ((C, C, C, T, W), "unclear: timeout, 3 of 5 correct"),
    ],
)
def test_a_band_of_difficulty(statuses: tuple[Status, ...], expected: str) -> None:
    stage = Solved(model="toy", max_tokens=8, samples=5, solved_from=4, rare_below=2)
    fate = solved_fate(stage, statuses)
    assert fate.reason == expected and fate.kept is (not expected or expected.startswith("unclear"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is fine.\nVerdict: clean", Fate(True)),
        ("**Verdict: Noisy**\n", Fate(False, "noisy: so the model says")),
        ("<think>Verdict: noisy</think>\nVerdict: **multi-part**.", Fate(False, "multi-part: so the model says")),
        ("Verdict: noisy\nNo, wait.\nVerdict: clean", Fate(True)),
        ("Verdict: clean or noisy", None),
        ("Verdict: noisy\nI hope this helps.", None),
        ("The verdict: clean", None),
        ("Verdict: fine", None),
        ("clean", None),
        ("", None),
    ],
)
def test_what_counts_as_a_verdict(text: str, expected: Fate | None) -> None:
    stage = Judged(model="toy", max_tokens=8)
    assert judged_fate(stage, Reply(text, 5, "stop")) == (
        expected or Fate(True, "unclear: no verdict in the last line")
    )
    cut = judged_fate(stage.model_copy(update={"unclear": "drop"}), Reply(text, 5, "length"))
    assert cut == Fate(False, "unclear: the reply was cut")


def test_a_problem_is_put_into_a_prompt_as_it_is() -> None:
    stage = Judged(model="toy", max_tokens=8, prompt="{problem} | {answer} | {other}")
    assert (
        user_turn(stage, Candidate(0, "a", "is {answer} set?", None, ("1", "2")))
        == "is {answer} set? | 1 or 2 | {other}"
    )


def test_a_model_is_asked_with_the_prompt_of_the_run() -> None:
    """With the same system prompt, examples and suffix, so that a solve rate is that of the training."""
    said = {"system_prompt": "12", "examples": [{"problem": "1+1", "response": "2"}]}
    stage = Solved.model_validate(SOLVED | said | {"prompt": "{problem}="})
    asked = prompts(stage, [Candidate(0, "a", "2+3", None, ("5",))], make_tokenizer())
    assert asked == tokenize_prompts(Data(path="toy", suffix="=", **said), ["2+3"], make_tokenizer())


# Recipes


def test_the_papers_recipes() -> None:
    s1, deepscaler, mixed = (load_recipe(RECIPES / f"open-{name}-data.yaml", []) for name in ("s1", "deepscaler", "rs"))
    assert [s1.paper, *(stage.paper for stage in s1.stages.values())] == [59029, 31323, 21533, 18615, None, None]
    assert [deepscaler.paper, *(stage.paper for stage in deepscaler.stages.values())] == [40315, 21044, None, None]
    models = [
        stage.model for r in (s1, deepscaler) for stage in r.stages.values() if isinstance(stage, Solved | Judged)
    ]
    assert models == [
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
        "Qwen/Qwen2.5-7B-Instruct",
        "Qwen/Qwen2.5-Math-7B-Instruct",
    ]
    easy = deepscaler.stages["easy"]
    assert isinstance(easy, Solved) and easy.max_prompt_tokens + easy.max_tokens == 4096, "all that this model takes"
    mix = mixed.stages["mix"]
    assert isinstance(mix, Mix) and mix.counts == {"open-s1": 3000, "open-deepscaler": 3000, "easy": 1000}
    assert (mix.paper, mixed.sources["easy"].dropped_by) == (7000, "easy")


CHEAP: dict[str, Any] = {
    "name": "mine",
    "sources": {"own": {"path": "own.jsonl"}},
    "stages": {
        "twice": {"kind": "duplicates"},
        "trivial": {"kind": "solved", "model": "toy", "max_tokens": 8},
        "mixed": {"kind": "mix", "counts": {"own": 2}},
    },
}
MISTAKES = {
    "misspelt field": (["--stages.trivial.sample", "2"], "the nearest one is stages.trivial.samples"),
    "field of another kind": (["--stages.twice.samples", "2"], "stages.twice.samples is not a field"),
    "no such stage": (["--stages.easy.samples", "2"], "stages.easy.samples is not a field"),
    "unknown kind": (["--stages.twice.kind", "doubles"], "stages.twice.kind must be one of 'boxed', 'duplicates'"),
    "bound": (["--stages.trivial.samples", "0"], "stages.trivial.samples is 0; allowed: whole number > 0"),
    "cross-check": (["--stages.trivial.solved_from", "2"], "solved_from (2) must not be more than samples (1)"),
    "band": (["--stages.trivial.rare_below", "1"], "rare_below (1) must be below solved_from (1)"),
    "no such source": (["--stages.mixed.counts.other", "3"], "mixes other, which is none of the sources own"),
    "two ways": (["--stages.mixed.total", "3"], "either counts, or fractions with a total"),
    "shares": (["--stages.mixed", "{kind: mix, fractions: {own: 0.9}, total: 3}"], "add up to 1, not 0.9"),
    "no path": (["--sources.own.path", "null"], "sources.own needs either a path or a curated set"),
    "name": (["--name", "a/b"], "name is"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_recipe_is_one_sentence(tmp_path: Path, mistake: str) -> None:
    overrides, expected = MISTAKES[mistake]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(CHEAP, sort_keys=False))
    with pytest.raises(UserError) as raised:
        load_recipe(tmp_path / "mine.yaml", overrides)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*-data.yaml")), ids=lambda path: path.stem)
def test_every_recipe_takes_local_files_with_columns_of_their_own(tmp_path: Path, recipe: Path, suffix: str) -> None:
    rows = [{"task": f"{n}+{n}", "final": f"steps #### {2 * n}", "id": n} for n in range(1, 4)]
    file, suite = tmp_path / f"mine{suffix}", tmp_path / f"suite{suffix}"
    for path, content in ((file, rows), (suite, [{"question": "2 + 2", "answer": 4}])):
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), path)
        else:
            path.write_text(json.dumps(content) if suffix == ".json" else "\n".join(map(json.dumps, content)))
    changes = []
    for name in load_recipe(recipe, []).sources:
        columns = {"problem": "task", "answer": "final", "solution": "final", "answer_after": "####"}
        changes += [
            f"--sources.{name}.path={file}",
            f"--sources.{name}.curated=null",
            f"--sources.{name}.dropped_by=null",
        ]
        changes += [f"--sources.{name}.columns.{field}={column}" for field, column in columns.items()]
    suites = SUITES if "decontaminated" in load_recipe(recipe, []).stages else ()
    changes += [f"--stages.decontaminated.against.{name}={suite}" for name in suites]
    for name, stage in load_recipe(recipe, []).stages.items():
        if isinstance(stage, Solved | Judged):
            changes += [
                f"--stages.{name}.model=toy",
                f"--stages.{name}.max_tokens=64",
                f"--stages.{name}.max_prompt_tokens=64",
            ]
        if isinstance(stage, Solved):
            changes.append(f"--stages.{name}.examples=[]")  # the toy's tokenizer knows no words
    changed = load_recipe(recipe, changes)
    inputs = load_inputs(changed)
    assert len(inputs.candidates) == 3 * len(changed.sources) and all(fate.kept for fate in inputs.fates)
    first = inputs.candidates[0]
    assert (first.problem, first.answer, first.solution) == ("1+1", ("2",), "steps #### 2")
    assert inputs.evaluations.get("decontaminated", {}) == {name: ["2 + 2"] for name in suites}


def test_of_a_hub_data_set_only_the_columns_that_are_wanted_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"problem": "1 + 1", "answer": "2", "trajectory": "long"}\n')
    assert read_rows(str(tmp_path), "train", columns=["answer", "problem"]) == [{"answer": "2", "problem": "1 + 1"}]
    assert set(read_rows(str(tmp_path), "train", columns=["answer", "question"])[0]) == {
        "answer",
        "problem",
        "trajectory",
    }


# From start to end, with made-up replies


def own_recipe(folder: Path, **stages: dict[str, Any]) -> Recipe:
    rows = [{"problem": f"{n}+{n}", "answer": str(2 * n), "solution": rf"\boxed{{{2 * n}}}"} for n in range(10)]
    rows += [{"problem": " ", "answer": "1"}, {"problem": "7+1", "answer": ""}, {"problem": "3 + 3", "answer": "6"}]
    file = folder / "own.json"
    if not file.exists():
        file.write_text(json.dumps([{"solution": None, **row} for row in rows]))
    content = {
        "name": "mine",
        "folder": str(folder / "data"),
        "sources": {"own": {"path": str(file), "columns": {"solution": "solution"}}},
        "stages": {"twice": {"kind": "duplicates"}} | stages,
        "chunk": 3,
        "checks": 1,
    }
    return Recipe.model_validate(content)


class Answers:
    """Right about even sums of two digits; dies after `lives` chunks."""

    def __init__(self, chunk: int = 3, lives: int = 1000) -> None:
        self.chunk, self.lives = chunk, lives
        self.asked: list[Question] = []

    def __call__(self, stage: Solved | Judged, questions: Sequence[Question], tell: Tell) -> None:
        for start in range(0, len(questions), self.chunk):
            if start >= self.chunk * self.lives:
                raise RunError("the engine died")
            part = questions[start : start + self.chunk]
            self.asked += part
            tell({q.row: tuple(self.reply(stage, q, sample) for sample in range(len(q.seeds))) for q in part})

    def reply(self, stage: Solved | Judged, question: Question, sample: int) -> Reply:
        if isinstance(stage, Judged):
            return Reply("Verdict: noisy" if question.row == 1 else "Verdict: clean", 3, "stop")
        right = question.row % 2 == 0 and question.row >= 5 and sample == 0
        return Reply(rf"\boxed{{{2 * question.row if right else 'x'}}}", 5, "stop")


SOLVED = {
    "kind": "solved",
    "model": "toy",
    "max_tokens": 64,
    "max_prompt_tokens": 16,
    "prompt": "{problem}",
    "samples": 2,
}


JUDGED = {"kind": "judged", "model": "toy", "max_tokens": 64, "max_prompt_tokens": 16, "prompt": "{problem}"}


def curate(recipe: Recipe, ask: Answers) -> list[Counts]:
    return Curation(recipe, load_inputs(recipe), CurationStore(recipe.place), ask, lambda text: None).run()


def rows_of(path: Path) -> dict[int, tuple[bool, str]]:
    return {row["row"]: (row["kept"], row["reason"]) for row in pq.read_table(path).to_pylist()}


def test_what_was_finished_before_a_kill_is_not_asked_again(tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, trivial=SOLVED, noisy=JUDGED)
    dying, folder = Answers(lives=2), tmp_path / "data" / "mine"
    with pytest.raises(RunError):
        curate(recipe, dying)
    assert [question.row for question in dying.asked] == [0, 1, 2, 3, 4, 5]
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    assert len(before) == 4, "sources, twice and two chunks"

    again = Answers(chunk=2)
    counts = curate(recipe.model_copy(update={"chunk": 2}), again)
    assert [question.row for question in again.asked[:4]] == [6, 7, 8, 9], "and only then the next stage"
    assert before.items() <= {path: path.read_bytes() for path in folder.rglob("*.parquet")}.items()
    assert counts == [
        Counts("sources", 13, 11, None, {"no problem": 1, "no answer": 1}),
        Counts("twice", 11, 10, None, {"duplicate": 1}),
        Counts("trivial", 10, 8, None, {"solved": 2}),
        Counts("noisy", 8, 7, None, {"noisy": 1}),
    ]
    trivial = rows_of(folder / "02-trivial.parquet")
    assert {row for row, (kept, _) in trivial.items() if not kept} == {6, 8}
    assert trivial[6][1] == "solved: 1 of 2 correct"
    chunk = pq.read_table(folder / "02-trivial" / "000002.parquet").to_pylist()
    assert [(row["problem_index"], row["sample"], row["status"], row["length"]) for row in chunk] == [
        (6, 0, "correct", 5), (6, 1, "wrong", 5), (7, 0, "wrong", 5), (7, 1, "wrong", 5),
    ]  # fmt: skip
    assert {(row["task"], row["problem"], *row["gold"], row["prompt"]) for row in chunk[:2]} == {
        ("trivial", "6+6", "12", "<|user|>6+6<|assistant|>")
    }
    assert [row["answer"] for row in chunk[:2]] == ["12", "x"]
    assert chunk[0]["text"] == "\\boxed{12}"
    (noisy, *_) = pq.read_table(folder / "03-noisy" / "000000.parquet").to_pylist()
    assert (noisy["task"], noisy["status"], noisy["kept"]) == ("noisy", "unchecked", True)

    idle = Answers()
    assert curate(recipe, idle) == counts and not idle.asked
    whole = Answers()
    assert curate(recipe.model_copy(update={"name": "whole"}), whole) == counts
    assert {q.row: q.seeds for q in whole.asked[:10]} == {q.row: q.seeds for q in (*dying.asked, *again.asked[:4])}
    assert len({seed for q in whole.asked for seed in q.seeds}) == 10 * 2 + 8
    results = [pq.read_table(folder.parent / name / f"{name}.parquet") for name in ("mine", "whole")]
    assert results[0] == results[1] and results[0].column_names == ["problem", "solution", "answer", "source"]
    loaded = load_problems(
        Data(path=str(folder / "mine.parquet")), make_tokenizer(), 64, lambda golds: [True] * len(golds)
    )
    assert [(p.text, p.gold) for p in loaded.problems] == [(f"{n}+{n}", (str(2 * n),)) for n in (0, 2, 3, 4, 5, 7, 9)]


def test_the_work_of_an_older_version_goes_on(tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, trivial=SOLVED)
    counts, folder = curate(recipe, Answers()), tmp_path / "data" / "mine"
    (folder / "02-trivial.parquet").unlink()
    for file in sorted((folder / "02-trivial").iterdir())[:2]:
        rows = pq.read_table(file).to_pylist()
        older = {row["problem_index"]: row for row in rows}.values()  # a row per problem, with lists of replies
        columns = {
            "row": pa.array([row["problem_index"] for row in older], pa.int32()),
            "replies": [["x"]] * len(older),
        }
        columns |= {name: [row[name] for row in older] for name in ("kept", "reason")}
        pq.write_table(pa.table(columns), file)
    idle = Answers()
    assert curate(recipe, idle) == counts and not idle.asked


def test_other_work_in_the_folder_is_refused(tmp_path: Path) -> None:
    recipe = own_recipe(tmp_path, trivial=SOLVED)
    with pytest.raises(RunError):
        curate(recipe, Answers(lives=1))
    for stages, expected in (
        ({"trivial": SOLVED | {"samples": 3}}, "samples of stage trivial was 2 .* cannot become 3"),
        ({}, 'stage 2 was "trivial" .* cannot become nothing'),
        ({"first": {"kind": "boxed"}, "trivial": SOLVED}, 'stage 2 was "trivial" .* cannot become "first"'),
    ):
        with pytest.raises(UserError, match=expected):
            curate(own_recipe(tmp_path, **stages), Answers())
    with pytest.raises(UserError, match=r"seed of stage sources was 42 .* cannot become 43"):
        curate(recipe.model_copy(update={"seed": 43}), Answers())
    # A stage that nothing was done of may change, and the paper's counts are only shown.
    later = {"mixed": {"kind": "mix", "counts": {"own": 99}, "paper": 7}}
    with pytest.raises(UserError, match="asks for 99 problems of own but 8 are left"):
        curate(own_recipe(tmp_path, trivial=SOLVED | {"paper": 3}, **later), Answers())
    later["mixed"]["counts"]["own"] = 4
    assert curate(own_recipe(tmp_path, trivial=SOLVED, **later), Answers())[-1] == Counts(
        "mixed", 8, 4, 7, {"not drawn": 4}
    )
    result = tmp_path / "data" / "mine" / "mine.parquet"
    assert pq.read_table(result).num_rows == 4
    more = later | {"again": {"kind": "mix", "counts": {"own": 5}}}
    with pytest.raises(UserError, match="asks for 5 problems of own but 4 are left"):
        curate(own_recipe(tmp_path, trivial=SOLVED, **more), Answers())
    assert not result.exists(), "what lies there is what the recipe says, or nothing"
    curate(own_recipe(tmp_path, trivial=SOLVED, **later), Answers())
    content = json.loads((tmp_path / "own.json").read_text())
    (tmp_path / "own.json").write_text(
        json.dumps([*content[:-1], {"problem": "4 + 3", "answer": "7", "solution": None}])
    )
    with pytest.raises(UserError, match="the rows of stage sources have changed"):
        curate(own_recipe(tmp_path, trivial=SOLVED, **later), Answers())
    assert result.exists()


def test_other_evaluation_sets_are_other_work(tmp_path: Path) -> None:
    suite = tmp_path / "suite.json"
    stages: dict[str, Any] = {"clean": {"kind": "overlaps", "against": {"suite": str(suite)}}}
    suite.write_text(json.dumps([{"problem": "2 + 2"}]))
    assert curate(own_recipe(tmp_path, **stages), Answers())[-1].reasons == {"same text as suite": 1}
    suite.rename(tmp_path / "moved.json")
    stages["clean"]["against"] = {"suite": str(tmp_path / "moved.json")}
    curate(own_recipe(tmp_path, **stages), Answers())  # elsewhere, but the same
    (tmp_path / "moved.json").write_text(json.dumps([{"problem": "3 + 4"}]))
    with pytest.raises(UserError, match="the evaluation sets of stage clean have changed"):
        curate(own_recipe(tmp_path, **stages), Answers())
    (tmp_path / "moved.json").write_text(json.dumps([{"text": "3 + 4"}]))
    with pytest.raises(UserError, match="row 1 of evaluation set suite has nothing in problem or question"):
        load_inputs(own_recipe(tmp_path, **stages))


def test_what_cannot_be_asked_or_checked_is_unclear_either_way(tmp_path: Path) -> None:
    rows = [
        {"problem": "1+1", "answer": "plain words"},
        {"problem": "2" * 30, "answer": "3"},
        {"problem": "2+2", "answer": "4"},
    ]
    (tmp_path / "own.json").write_text(json.dumps([row | {"solution": ""} for row in rows]))
    for way, kept in (("keep", 3), ("drop", 1)):
        recipe = own_recipe(tmp_path, trivial=SOLVED | {"unclear": way}).model_copy(update={"name": way})
        answers = Answers()
        label = "unclear (kept)" if way == "keep" else "unclear"
        assert curate(recipe, answers)[-1] == Counts("trivial", 3, kept, None, {label: 2})
        assert [question.row for question in answers.asked] == [0, 2]
        reasons = rows_of(recipe.place / "02-trivial.parquet")
        assert reasons[0][1].startswith("unclear: unparseable_gold, 0 of 2") and "too long" in reasons[1][1]
        assert reasons[2] == (True, "")


def test_a_set_made_of_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the set mine is not in"):
        load_inputs(mixed := Recipe.model_validate({
            "name": "mixed",
            "folder": str(tmp_path / "data"),
            "sources": {"hard": {"curated": "mine"}, "easy": {"curated": "mine", "dropped_by": "trivial"}},
            "stages": {"mix": {"kind": "mix", "counts": {"hard": 3, "easy": 2}}},
        }))  # fmt: skip
    curate(own_recipe(tmp_path, trivial=SOLVED), Answers())
    counts = curate(mixed, Answers())
    assert [(one.entered, one.kept) for one in counts] == [(10, 10), (10, 5)]
    found = pq.read_table(tmp_path / "data" / "mixed" / "mixed.parquet").to_pylist()
    assert [row["problem"] for row in found if row["source"] == "easy"] == ["6+6", "8+8"]
    assert Counter(row["source"] for row in found) == {"hard": 3, "easy": 2}
    assert found[0]["solution"].startswith("\\boxed"), "solutions come along"


def test_several_accepted_answers_stay_apart(tmp_path: Path) -> None:
    rows = [
        {"problem": "which?", "answer": ["2", "two"], "solution": ""},
        {"problem": "1+1", "answer": 2.0, "solution": ""},
    ]
    (tmp_path / "own.json").write_text(json.dumps(rows))
    curate(own_recipe(tmp_path), Answers())
    path = tmp_path / "data" / "mine" / "mine.parquet"
    loaded = load_problems(Data(path=str(path)), make_tokenizer(), 64, lambda golds: [True] * len(golds))
    assert [problem.gold for problem in loaded.problems] == [("2", "two"), ("2",)]


def test_the_table(tmp_path: Path) -> None:
    counts = [
        Counts("sources", 59000, 59000, 59029, {}),
        Counts("trivial", 31000, 21000, 21533, {"solved": 9990, "unclear": 10}),
    ]
    report.write(tmp_path, "open-s1", counts)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[4] == "| sources | 59,000 | 59,000 | 59,029 rows | - |"
    assert lines[5] == "| trivial | 31,000 | 21,000 | 21,533 | 9,990 solved, 10 unclear |"
    assert json.loads((tmp_path / "report.json").read_text())["stages"][1]["paper"] == 21533


# Real data


def test_the_known_overlaps_are_found(tmp_path: Path) -> None:
    """Those that the shared data's own description names, and nothing between GSM8K and any suite."""
    against = {name: str(shared_file(f"eval/{name}.jsonl")) for name in SUITES}
    columns = {"problem": "question", "answer": "answer", "answer_after": "####"}
    sources: dict[str, Any] = {
        "aime": {"path": str(shared_file("train/deepscaler_aime.json"))},
        "math": {"path": str(shared_file("train/math_train.jsonl"))},
        "gsm8k": {"path": str(shared_file("train/gsm8k_train.jsonl")), "columns": columns},
    }
    stages = {"decontaminated": {"kind": "overlaps", "against": against}}
    content = {"name": "real", "folder": str(tmp_path), "sources": sources, "stages": stages}
    curate(Recipe.model_validate(content), Answers())
    rows = pq.read_table(tmp_path / "real" / "01-decontaminated.parquet").to_pylist()
    exact = Counter((r["source"], r["reason"].partition(":")[0]) for r in rows if r["reason"].startswith("same text"))
    assert exact == {
        ("aime", "same text as math500"): 6,
        ("math", "same text as math500"): 1,
        ("math", "same text as olympiadbench"): 2,
    }
    by_words = Counter(row["source"] for row in rows if row["reason"].startswith("words of"))
    assert by_words["gsm8k"] == 0 and by_words["math"] > 0
    assert all(row["kept"] is (row["reason"] == "") for row in rows)
