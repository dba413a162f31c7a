"""Own rewards in the pool: what they are given, what they may return, and what a bad one costs."""

import asyncio
import pickle
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import code_below
from places import ROOT
from pydantic import ValidationError

from openrs_ray.config.rewards import Rewards
from openrs_ray.errors import UserError
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards import inspection
from openrs_ray.rewards.judge import Judge, Judges, group_item, with_own_group_rewards
from openrs_ray.rewards.own import OwnReward, parameters_of
from openrs_ray.rewards.own_functions import own_rewards
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem
from openrs_ray.user_code.reference import UserCode

DEADLINE_S = 1.0
FILE = ROOT / "tests" / "support" / "my_rewards.py"


def read(reference: str, folder: Path = FILE.parent) -> UserCode:
    return UserCode.read(reference, [folder])


def own(name: str, parameters: dict[str, Any] | None = None) -> dict[str, OwnReward]:
    reference = f"my_rewards.py:{name}"
    return own_rewards([reference, "accuracy"], {name: parameters} if parameters else {}, read, 2.0)


def judge(name: str, weight: float = 0.5, parameters: dict[str, Any] | None = None) -> Judge:
    return Judge({"accuracy": 2.0, f"my_rewards.py:{name}": weight}, "boxed", own=own(name, parameters))


def item(text: str, gold: str = "4", tokens: int = 10) -> JudgeItem:
    return JudgeItem(text, tokens, "stop", (gold, "four"), problem="2 + 2", row={"level": 3}, task="sums")


class Judged:
    """A pool of one process around a judge, and what it printed."""

    def __init__(self, judge: Judge, memory_gib: float = 1.0) -> None:
        self.printed: list[str] = []
        prepare = partial(judge.prepare, [item(r"\boxed{4}")])
        self.pool: CheckPool[Any, Any] = CheckPool(
            judge, 1, DEADLINE_S, memory_gib, prepare=prepare, printed=self.printed.append
        )

    def __call__(self, *texts: str) -> list[Verdict]:
        return asyncio.run(self.pool.judge_many([item(text) for text in texts]))


@pytest.fixture(scope="module")
def moody() -> Iterator[Judged]:
    judged = Judged(judge("moody"))
    with judged.pool:
        yield judged


def test_a_reward_is_added_with_its_weight_and_its_parameter_and_prints_into_the_log() -> None:
    judged = Judged(judge("brevity", 0.5, {"scale": 4}))
    with judged.pool:
        right, wrong = judged(r"\boxed{4}", r"\boxed{5}")
    assert right.rewards == {"accuracy": 1.0, "my_rewards.py:brevity": 0.4} and right.reward == 2.0 + 0.5 * 0.4
    assert wrong.rewards == {"accuracy": 0.0, "my_rewards.py:brevity": 0.4} and wrong.reward == 0.5 * 0.4
    assert judged.printed == ["my_rewards.py:brevity: 10 tokens"] * 2, "not for the warm-up"


def test_all_arguments_are_there_for_one_that_takes_all() -> None:
    judged = Judged(judge("everything", parameters={"own": [1, {"two": 3}]}))
    with judged.pool:
        judged(r"\boxed{5}")
    (line,) = judged.printed
    assert line == "my_rewards.py:everything: " + repr(
        sorted(
            {
                "answer": "5",
                "finish_reason": "stop",
                "gold": "4",
                "golds": ("4", "four"),
                "own": [1, {"two": 3}],
                "problem": "2 + 2",
                "row": {"level": 3},
                "status": "wrong",
                "task": "sums",
                "token_count": 10,
            }.items()
        )
    )


def test_a_bad_one_costs_its_completion_only(moody: Judged) -> None:
    """Hangs, exits, crashes and fills the memory among good ones, in one process."""
    bad = {
        "hang": (Status.TIMEOUT, "killed at the deadline of 1 s of computing in my_rewards.py:moody"),
        "sleep": (Status.TIMEOUT, "in my_rewards.py:moody"),
        "exit": (Status.ERROR, "processes died of it in my_rewards.py:moody, the last with exit code 3"),
        "quit": (Status.ERROR, "my_rewards.py:moody raised SystemExit: bye (my_rewards.py, line"),
        "crash": (Status.ERROR, "in my_rewards.py:moody, the last with exit code -11"),
        "fill": (Status.ERROR, "MemoryError at the limit of 1 GiB in my_rewards.py:moody"),
        "raise": (Status.ERROR, "my_rewards.py:moody raised KeyError: 'a key' (my_rewards.py, line"),
        "text": (Status.ERROR, "my_rewards.py:moody returned 'good' (str), not a number up to a million, or None"),
        "nan": (Status.ERROR, "returned nan (float)"),
        "inf": (Status.ERROR, "returned inf (float)"),
        "large": (Status.ERROR, "returned 1000"),
    }
    texts = [text for name in bad for text in (name + r" \boxed{5}", r"good \boxed{4}")]
    verdicts = moody(*texts)
    for verdict, (name, (status, detail)) in zip(verdicts[::2], bad.items(), strict=True):
        assert verdict.status is status and detail in verdict.detail, (name, verdict)
        assert verdict.reward is None and verdict.rewards == {}
    assert {(verdict.status, verdict.reward) for verdict in verdicts[1::2]} == {(Status.CORRECT, 2.25)}


def test_none_true_and_a_fork(moody: Judged) -> None:
    none, true, fork, after = moody(r"none \boxed{4}", r"true \boxed{4}", r"fork \boxed{4}", r"good \boxed{4}")
    assert (none.status, none.reward, none.answer) == (Status.CORRECT, None, "4")
    assert none.detail == "my_rewards.py:moody did not judge it (it returned None)"
    assert true.rewards["my_rewards.py:moody"] == 1.0
    assert (fork.reward, after.reward) == (2.25, 2.25)


def test_a_leak_is_not_paid_by_others(moody: Judged) -> None:
    verdicts = moody(*[r"leak \boxed{4}"] * 12, r"good \boxed{4}")
    assert [verdict.reward for verdict in verdicts] == [2.25] * 13
    assert moody.pool.counts().errors < 12


def group(reward: str, *texts: str) -> tuple[Verdict, ...]:
    """Verdicts of a group of which the last completion was not judged before."""
    judged = Judged(judge(reward))
    items = [item(text, tokens=10 * number) for number, text in enumerate(texts, start=1)]
    before = [Verdict(Status.WRONG, {"accuracy": 0.0}, 1.0)] * (len(texts) - 1) + [Verdict(Status.TIMEOUT, {}, None)]
    asked = group_item(items, before)
    assert asked is not None
    with judged.pool:
        pool = CheckPool(judge(reward).group, 1, DEADLINE_S, 1.0)
        with pool:
            return with_own_group_rewards(before, pool.submit(asked).result(60), {f"my_rewards.py:{reward}": 0.5})


def test_a_group_reward_sees_those_that_are_judged() -> None:
    first, second, third, last = group("spread", "one", "none", "three", "four")
    assert first.rewards == {"accuracy": 0.0, "my_rewards.py:spread": -1 / 3} and first.reward == 1 - 0.5 / 3
    assert (second.reward, second.status, second.rewards) == (None, Status.WRONG, {})
    assert "did not judge" in second.detail
    assert third.reward == 0.5
    assert last.status is Status.TIMEOUT and last.reward is None


def test_a_failing_group_reward_takes_the_reward_from_its_group() -> None:
    *judged, last = group("short_list", "one", "two", "three")
    assert {(verdict.status, verdict.reward) for verdict in judged} == {(Status.ERROR, None)}
    assert judged[0].detail == "my_rewards.py:short_list returned 1 values for 2 completions"
    assert last.status is Status.TIMEOUT


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("nothing", {}, "there is no nothing in .*my_rewards.py .*: it has .*brevity"),
        ("Words", {}, "my_rewards.py:Words is no function"),
        ("_KEPT", {}, "my_rewards.py:_KEPT is no function"),
        ("waiting", {}, "my_rewards.py:waiting is async: make it a plain function"),
        ("without_first", {}, "the first argument of my_rewards.py:without_first must be completion .* or completions"),
        (
            "greedy",
            {},
            "greedy asks for reference_model, which it is not given: it may name problem, gold, golds, row,",
        ),
        (
            "brevity",
            {"scal": 1},
            "rewards.parameters.brevity.scal is no parameter of my_rewards.py:brevity: it has scale",
        ),
        ("brevity", {"scale": "2"}, 'rewards.parameters.brevity.scale is "2": input should be a valid number'),
        (
            "brevity",
            {"gold": "2"},
            "rewards.parameters.brevity.gold is no parameter of my_rewards.py:brevity: the run gives it",
        ),
        ("typed", {"names": ["a", 1]}, "rewards.parameters.typed.names is .*: input should be a valid string"),
        ("typed", {"most": 1.5}, "rewards.parameters.typed.most is 1.5: input should be a valid integer"),
    ],
)
def test_a_function_that_does_not_fit_is_one_sentence(name: str, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        own(name, parameters)
    assert "\n" not in str(caught.value)


def test_fitting_parameters_are_taken() -> None:
    assert own("typed", {"names": ["a", "b"], "most": None})["my_rewards.py:typed"].takes == ()
    assert own("greedy", {"reference_model": "x"})["my_rewards.py:greedy"].parameters == {"reference_model": "x"}
    assert own("spread")["my_rewards.py:spread"].judges == "completions"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("def brevity(completion):\n  return (1\n", "is not Python: '\\(' was never closed in line 2"),
        (
            "import nothing_of_this_name\n",
            "cannot be imported: ModuleNotFoundError: No module .* \\(mine.py, line 1\\)",
        ),
        ("x = 1\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero \\(mine.py, line 2\\)"),
        ("while True: pass\n", "cannot be imported: killed at the deadline of 1 s of computing"),
        ("import time\ntime.sleep(100)\n", "cannot be imported: killed at the deadline of 1 s"),
        ("import os\nos._exit(4)\n", "cannot be imported: .*died of it.*exit code 4"),
        ("raise SystemExit(0)\n", "cannot be imported: SystemExit: 0"),
        ("x = bytearray(1 << 40)\n", "cannot be imported: MemoryError"),
        ("brevity = 3\n", "mine.py:brevity is no function: it is 3 \\(int\\)"),
        ("", "there is no brevity in .*: it has no functions or classes"),
        (b"\xff\xfe\x00", "is not text that Python can read"),
        (b"x = 1\0\n", "mine.py"),
        (None, "there is no file mine.py \\(mine.py:brevity\\): it was looked for in "),
    ],
)
def test_a_bad_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | bytes | None, sentence: str
) -> None:
    monkeypatch.setattr(inspection, "DEADLINE_S", 1.0)
    if content is not None:
        (tmp_path / "mine.py").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=sentence) as caught:
        own_rewards(["mine.py:brevity"], {}, partial(read, folder=tmp_path), 1.0)
    assert "mine.py" in str(caught.value) and "\n" not in str(caught.value)


def test_parameters_belong_to_one_reward() -> None:
    names = ["a.py:same", "b.py:same", "b.py:other"]
    given: dict[str, dict[str, Any]] = {"a.py:same": {"x": 1}, "other": {"y": 2}}
    assert parameters_of(names, given) == {"a.py:same": {"x": 1}, "b.py:same": {}, "b.py:other": {"y": 2}}
    for keys, sentence in (
        (["same"], "is not clear"),
        (["nix"], "of no own reward"),
        (["other", "b.py:other"], "not clear"),
    ):
        with pytest.raises(UserError, match=sentence):
            parameters_of(names, {key: {} for key in keys})


def test_the_file_need_not_be_there_but_what_it_imports_may_be(tmp_path: Path) -> None:
    """The text travels; a file beside it is found where its folder is."""
    (tmp_path / "beside.py").write_text("FACTOR = 3.0\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "import pickle\nfrom dataclasses import dataclass\nfrom beside import FACTOR\n\n\n"
        "@dataclass\nclass Words:\n    count: int\n\n\n"
        "def score(completion):\n"
        "    return FACTOR * pickle.loads(pickle.dumps(Words(len(completion.split())))).count\n\n\n"
        "def fail(completion):\n    return unknown_name\n"
    )
    rewards = own_rewards(["mine.py:score", "mine.py:fail"], {}, partial(read, folder=tmp_path), 1.0)
    file.unlink()
    pool = CheckPool(Judge({"mine.py:score": 1.0}, "boxed", own=rewards), 1, 5.0, 1.0)
    with pool:
        assert pool.submit(item("one two")).result(60).reward == 6.0  # type: ignore[union-attr]
    failing = Judge({"mine.py:fail": 1.0}, "boxed", own=rewards)
    with CheckPool(failing, 1, 5.0, 1.0) as pool:
        detail = pool.submit(item("one two")).result(60).detail  # type: ignore[union-attr]
    assert detail == "mine.py:fail raised NameError: name 'unknown_name' is not defined (mine.py, line 16)"


def test_a_file_that_changes_after_it_was_read_is_not_looked_at_again(tmp_path: Path) -> None:
    file = tmp_path / "my_rewards.py"
    shutil.copy(FILE, file)
    rewards = own_rewards(["my_rewards.py:typed"], {}, partial(read, folder=tmp_path), 1.0)
    file.write_text("import sys; sys.exit(1)")
    with CheckPool(Judge({"my_rewards.py:typed": 1.0}, "boxed", own=rewards), 1, 5.0, 1.0) as pool:
        assert pool.submit(item("x")).result(60).reward == 0.0  # type: ignore[union-attr]


def test_files_are_looked_for_in_order(tmp_path: Path) -> None:
    folders: Sequence[Path] = [tmp_path / name for name in ("recipe", "here")]
    for folder in folders:
        folder.mkdir()
        (folder / "mine.py").write_text(f"# {folder.name}\n")
    assert UserCode.read("mine.py:f", folders).path == str(tmp_path / "recipe" / "mine.py")
    (tmp_path / "recipe" / "mine.py").unlink()
    assert UserCode.read("mine.py:f", folders).path == str(tmp_path / "here" / "mine.py")
    assert UserCode.read(f"{tmp_path}/here/mine.py:f", []).path == str(tmp_path / "here" / "mine.py")
    for reference, sentence in (
        ("mine.py:", "names nothing"),
        ("mine:f", "is no FILE.py:NAME"),
        ("mine.py:a.b", "NAME"),
    ):
        with pytest.raises(UserError, match=sentence):
            UserCode.read(reference, folders)


def test_the_reward_of_the_page(tmp_path: Path) -> None:
    """The page's file, its lines of a recipe, and its command."""
    (tmp_path / "my_rewards.py").write_text(code_below("Your own reward", "rewards"))
    rewards = Rewards(**yaml.safe_load(code_below("Your own reward", "rewards", "yaml"))["rewards"])
    found = own_rewards(rewards.weights, rewards.parameters, partial(read, folder=tmp_path), 1.0)
    judged = Judged(Judge.of(rewards, own=found))
    with judged.pool:
        (verdict,) = judged(r"</think> \boxed{4}")
        assert verdict.rewards == {"accuracy": 1.0, "my_rewards.py:brevity": 1.0} and verdict.reward == 2.5
    items = [item("a", tokens=20), item("b", tokens=30)]
    asked = group_item(items, [verdict, verdict])
    assert asked is not None
    with CheckPool(Judge.of(rewards, own=found).group, 1, 5.0, 1.0) as pool:
        verdicts = with_own_group_rewards([verdict, verdict], pool.submit(asked).result(60), rewards.weights)
    assert [each.reward for each in verdicts] == [2.6, 2.5]


@pytest.mark.parametrize(
    ("rewards", "sentence"),
    [
        ({"weights": {"accuracy": 1}, "parameters": {"brevity": {}}}, "brevity is of no own reward .*: there is none"),
        ({"weights": {"a.py:f": 1}, "unjudged": "wrong"}, "unjudged wrong does not go with rewards of your own"),
        ({"weights": {"a.py:f": 1}, "parameters": {"f": {"x": float("nan")}}}, "must be plain values"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(rewards: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Rewards(**rewards)


def test_pickled_sections_keep_own_rewards() -> None:
    rewards = Rewards(weights={"a.py:f": 1.0}, parameters={"f": {"x": 1}})
    assert pickle.loads(pickle.dumps(rewards)) == rewards


def test_a_file_beside_the_users_own_hides_no_library_of_ours(tmp_path: Path) -> None:
    (tmp_path / "py3langid.py").write_text("raise ImportError('not the library')")
    (tmp_path / "mine.py").write_text("def half(completion): return 0.5")
    code = UserCode.read("mine.py:half", [tmp_path])
    weights = {"language": 1.0, "mine.py:half": 1.0}
    judge = Judge(weights, "boxed", own={"mine.py:half": OwnReward(code, "completion", ())})
    text = r"We solve the equation and put what follows into a box. </think> \boxed{4}"
    prepare = partial(Judges({"": judge}).prepare, [JudgeItem(text, 9, "stop", ("4",))])
    with CheckPool[JudgeItem, Verdict](judge, 1, 5.0, 2.0, prepare=prepare) as pool:
        assert pool.submit(JudgeItem(text, 9, "stop", ("4",))).result(60).rewards["mine.py:half"] == 0.5
