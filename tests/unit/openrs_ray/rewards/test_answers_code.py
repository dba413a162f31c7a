"""Programs judged by their tests: the shapes of public data, and programs that try to pass without being right."""

import asyncio
import json
import re
from typing import Any

import pytest

from actors.pools.reward import RewardPool
from openrs_ray.config.answer import Answer
from openrs_ray.config.data import Data
from openrs_ray.config.environment import EnvironmentSection
from openrs_ray.config.rewards import Rewards
from openrs_ray.config.task import Task
from openrs_ray.errors import UserError
from openrs_ray.records import Status
from openrs_ray.rewards.answers.code import checker, deadline_s, program_in, readable
from openrs_ray.rewards.answers.kinds import check_kind
from openrs_ray.rewards.code_tests import running
from openrs_ray.rewards.code_tests.running import same_output
from openrs_ray.rewards.records import CheckedProgram, JudgeItem
from openrs_ray.sandbox.program import run_programs
from openrs_ray.sandbox.records import Ran, SandboxFailed

ANSWER = Answer(kind="code", cpu_s=1, memory_gib=0.5)
DOUBLE = "def f(x):\n    return x * 2"
TESTS = ("assert f(2) == 4", "assert f('a') == 'aa'", "assert f([417203]) == [417203, 417203]")
"""The last one's value is what a program would like to read."""


def judged(program: str, *gold: str, all_tests: bool = True, **row: Any) -> CheckedProgram:
    rewards = Rewards(weights={"tests_passed" if all_tests else "accuracy": 1.0})
    item = JudgeItem(f"<think>first</think>\n```python\n{program}\n```\n", 9, "stop", gold or TESTS, row=row)
    return checker(ANSWER, rewards)(item)


# Programs in completions


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("```py\na = 1\n```\nthen\n```python\nb = 2\n```\nand\n```bash\nls\n```", "b = 2\n"),
        ("```python\na = 1\n```\nIt prints:\n```\n1\n```", "a = 1\n"),
        ("~~~Python\na = 1\n~~~", "a = 1\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("1. Do:\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python title=x.py\na = 1\n```", "a = 1\n"),
        ("<think>```python\nwrong\n```</think>```python\na = 1\n```", "a = 1\n"),
        ("<think>```python\na = 1\n```", None),
        ("```python\na = 1", None),
        ("```cpp\nint a;\n```", None),
        ("a = 1", None),
        ("", None),
    ],
)
def test_program(text: str, program: str | None) -> None:
    assert program_in(text) == program


# Tests in the shapes of public data


def test_mbpp() -> None:
    """Row 602 of MBPP, in the shape of its full and of its sanitized version."""
    tests = ('assert first_repeated_char("abcabc") == "a"', 'assert first_repeated_char("abc") == None')
    program = """
def first_repeated_char(text):
    seen = set()
    for letter in text:
        if letter in seen:
            return letter
        seen.add(letter)
"""
    assert judged(program, *tests, test_setup_code="", test_imports=[])[:3] == (Status.CORRECT, f"{program}\n", 1.0)
    assert judged(program, json.dumps(list(tests))).status is Status.CORRECT


def test_setup_builds_objects_of_the_program() -> None:
    program = """
class Node:
    def __init__(self, value):
        self.value, self.left, self.right = value, None, None
def depth(node):
    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))
"""
    setup = "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)"
    assert (
        judged(program, "assert (depth(root)) == 3", "assert root.left.value == 2", test_setup_code=setup).status
        is Status.CORRECT
    )


def test_humaneval() -> None:
    tests = """
METADATA = {}

def check(candidate):
    assert candidate([1.0, 2.0], 0.5) == False
    assert candidate([1.0, 1.1], 0.5)
"""
    program = "def close(xs, limit):\n    return any(abs(a - b) < limit for i, a in enumerate(xs) for b in xs[:i])"
    assert judged(program, tests, entry_point="close").status is Status.CORRECT
    assert judged("def close(xs, limit): return True", tests, entry_point="close").status is Status.WRONG


@pytest.mark.parametrize(
    "shape",
    [
        lambda pairs: {"inputs": [a for a, _ in pairs], "outputs": [b for _, b in pairs]},
        lambda pairs: [{"input": a, "output": b, "testtype": "stdin"} for a, b in pairs],
        lambda pairs: {
            "language": "python",
            "test_cases": [{"type": "stdin_stdout", "input": a, "output": b} for a, b in pairs],
        },
        lambda pairs: {"inputs": [a.split("\n") for a, _ in pairs], "outputs": [[b] for _, b in pairs]},
    ],
)
def test_streams(shape: Any) -> None:
    gold = json.dumps(shape([("3\n4", "7"), ("10\n-1", "9")]))
    right = "import sys\nprint(sum(map(int, sys.stdin.read().split())))"
    assert judged(right, gold) == CheckedProgram(Status.CORRECT, f"{right}\n", 1.0)
    wrong = judged("print(int(input()) + 4)", gold)
    assert wrong == CheckedProgram(
        Status.WRONG, "print(int(input()) + 4)\n", 0.5, "test 2: another output was expected"
    )


def test_functions_of_apps_and_livecodebench() -> None:
    method = "class Solution:\n    def pair(self, a, b):\n        return (b, a)"
    apps = json.dumps({"fn_name": "pair", "inputs": [[1, 2], ["x", [3]]], "outputs": [[[2, 1]], [[3], "x"]]})
    assert judged(method, apps).status is Status.CORRECT
    live = json.dumps([{"input": '1\n"b"', "output": '["b", 1]', "testtype": "functional"}])
    assert judged(method, live, metadata='{"func_name": "pair"}').status is Status.CORRECT
    assert judged("def pair(a, b): return a", live, metadata={"func_name": "pair"}).status is Status.WRONG


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(x): return x / 3", "assert math.isclose(f(1), 0.33333, rel_tol=1e-3)"),
        ("def f(x): return {1, 2, x}", "assert f(3) == set([3, 2, 1])"),
        ("def f(x): return (n * n for n in range(x))", "assert list(f(3)) == [0, 1, 4]"),
        ("def f(xs): xs.sort()", "numbers = [2, 1]\nf(numbers)\nassert numbers == [1, 2]"),
        ("from collections import Counter\ndef f(text): return Counter(text)", "assert f('aab') == {'a': 2, 'b': 1}"),
        ("def f(x): return 3 ** x", "assert f(20000) == 3 ** 20000"),
        ("def f(x): return b'\\x00' + x", "assert f(b'a') == b'\\x00a'"),
        ("def f(x): return 'caf\\u00e9 \\ud800'", "assert f(1) == 'café \\ud800'"),
        ("def f(x): return float('nan'), float('inf'), -0.0, 2 + 1j", "assert str(f(1)) == '(nan, inf, -0.0, (2+1j))'"),
        (
            "def f(x): raise ValueError('no')",
            "try:\n    f(1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'no'",
        ),
        ("def f(x): return x", "for n in range(50):\n    assert f(n) == n"),
        ("def sum(a, b): return a + b - 19", "assert sum(10, 15) == 6"),
        (
            "class Shape:\n    side = 2\n    def area(self): return self.side ** 2",
            "shape = Shape()\nshape.side = 3\nassert shape.area() == 9",
        ),
        (
            "def f(n):\n    return dict(zip('ab', range(n)))",
            "assert f(2)['b'] == 1 and len(f(2)) == 2 and list(f(2).keys()) == ['a', 'b']",
        ),
        ("import numpy\ndef f(n): return numpy.arange(n), numpy.int64(n)", "assert f(3) == ([0, 1, 2], 3)"),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x): return P(x)",
            "assert f(4).x == 4",
        ),
        ("print('noise' * 1000000)\ndef f(x): return x", "assert f(1) == 1"),
        (
            "import sys; sys.setrecursionlimit(100000)\ndef f(n): return 0 if n == 0 else 1 + f(n - 1)",
            "assert f(20000) == 20000",
        ),
    ],
)
def test_values_cross_as_they_are(program: str, test: str) -> None:
    assert judged(program, test) == CheckedProgram(Status.CORRECT, f"{program}\n", 1.0)


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1  2 \n3", "1 2\n3\n\n", True),
        ("1 2 3", "1 2\n3", False),
        ("0.3333333", "0.33333333", True),
        ("0.333", "0.33333333", False),
        ("3", "3.0", True),
        ("1000000001", "1000000002", False),
        ("nan", "1.0", False),
        ("YES", "yes", False),
        ("", "0", False),
        ("", "", True),
    ],
)
def test_output(found: str, expected: str, same: bool) -> None:
    assert same_output(found, expected) is same


# Verdicts


def test_share_and_first_failure() -> None:
    checked = judged("def f(x): return x + x if x != 'a' else 'b'")
    assert checked[0] is Status.WRONG
    assert checked.passed_share == pytest.approx(2 / 3)
    assert checked.detail == "test 2: an assertion does not hold"


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("def f(x):\n    while True: pass", r"it had computed for \d"),
        ("def f(x):\n    import time; time.sleep(600)", "it had not ended after 6 s"),
        ("def f(x): return bytearray(10**10)", "MemoryError"),
        ("def f(x): return x / 0", "TypeError: unsupported operand|ZeroDivisionError: division by zero"),
        ("def f(x:", "SyntaxError: .* was never closed"),
        ("def g(x): return x", "NameError: name 'f' is not defined"),
        ("import os; os.abort()", "the program has ended"),
        ("(" * 100_000, "MemoryError|SyntaxError|the program has ended"),
    ],
)
def test_what_a_program_does_wrong_is_wrong(program: str, detail: str) -> None:
    checked = judged(program)
    assert (checked.status, checked.passed_share) == (Status.WRONG, 0.0)
    assert re.search(detail, checked.detail), checked


def test_a_detail_can_be_written_into_the_record() -> None:
    checked = judged("def f(x): raise ValueError('a\\ud800\\nb')")
    assert checked.detail == "test 1: ValueError: a? b"


def test_a_stream_that_hangs_ends_the_others() -> None:
    gold = json.dumps({"inputs": ["1", "2", "3"], "outputs": ["1", "2", "3"]})
    checked = judged("n = input()\nwhile n == '2': pass\nprint(n)", gold)
    assert checked.passed_share == pytest.approx(1 / 3)
    assert re.fullmatch(r"test 2: it had computed for [\d.]+ s", checked.detail)


def test_no_program_is_no_answer() -> None:
    item = JudgeItem("I cannot.", 3, "stop", TESTS)
    assert checker(ANSWER, Rewards())(item) == CheckedProgram(Status.NO_ANSWER, None)


@pytest.mark.parametrize(
    ("gold", "row"),
    [
        (("assert f(2 == 4",), {}),
        (("assert f(lambda x: x) == 4",), {}),
        (("assert f(2) == 4",), {"test_setup_code": "import nothing_of_that_name"}),
        (("assert f(2) == 4",), {"test_setup_code": "1 / 0"}),
        (('{"inputs": ["1"], "outputs": []}',), {}),
        (("[]",), {}),
        (("",), {}),
        (('[{"input": "1", "output": "1", "testtype": "functional"}]',), {}),
        (('{"inputs": ["one"], "outputs": ["1"], "fn_name": "f"}',), {}),
    ],
)
def test_tests_that_cannot_be_run_are_not_the_programs_fault(gold: tuple[str, ...], row: dict[str, Any]) -> None:
    assert judged(DOUBLE, *gold, **row).status is Status.UNPARSEABLE_GOLD


def test_golds_that_can_be_read() -> None:
    assert readable(TESTS, {})
    assert not readable(("assert f(2 == 4",), {})
    assert not readable(("not a test",), {})
    assert not readable(("42",), {}), "any program would pass"
    assert not readable(('{"inputs": 3}',), {})


def test_a_broken_machine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    judged(DOUBLE)
    monkeypatch.setattr("openrs_ray.sandbox.interpreter.executable", lambda: "/nowhere/python")
    with pytest.raises(SandboxFailed):
        judged(DOUBLE)


def test_a_check_has_time_for_all_its_runs() -> None:
    streams = json.dumps({"inputs": ["1"] * 50, "outputs": ["1"] * 50})
    few, many = (deadline_s(ANSWER, JudgeItem("", 1, "stop", gold)) for gold in (TESTS, (streams,)))
    assert few > 6 + 10
    assert many > 20 * 6


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(UserError, match=r"tests_passed, which is for answer\.kind code"):
        check_kind(Answer(), Rewards(weights={"tests_passed": 1.0}))
    with pytest.raises(UserError, match=r"answer.memory_gib \(4\) of a program is more than rewards.memory_gib \(2\)"):
        check_kind(Answer(kind="code", memory_gib=4), Rewards())
    check_kind(ANSWER, Rewards(weights={"tests_passed": 1.0}))


def test_the_pool_waits_for_programs_longer_than_for_other_checks() -> None:
    """A sleeping program meets its own limit, and is wrong, though the pool's deadline is shorter."""
    task = Task(
        "code",
        Data(path="unused"),
        ANSWER,
        Rewards(weights={"accuracy": 1.0}, processes=1, deadline_s=0.5),
        EnvironmentSection(),
    )
    pool = RewardPool([task])
    texts = [f"```python\n{program}\n```" for program in ("import time; time.sleep(600)", DOUBLE)]
    items = [JudgeItem(text, 9, "stop", TESTS, task="code") for text in texts]
    try:
        asleep, right = asyncio.run(pool.judge(items))
        counts = asyncio.run(pool.counts())
    finally:
        asyncio.run(pool.close())
    assert (asleep.status, asleep.reward, asleep.detail) == (Status.WRONG, 0.0, "it had not ended after 6 s")
    assert (right.status, right.reward) == (Status.CORRECT, 1.0)
    assert counts == {"checks": 2, "timeouts": 0, "errors": 0, "replaced": 0}


# Programs that try to pass

CHEATS = {
    "equal int": """
class Always(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def f(x): return Always()
""",
    "equal object": """
class Always:
    def __eq__(self, other): return True
def f(x): return Always()
""",
    "equal list": """
class Always(list):
    def __eq__(self, other): return True
def f(x): return Always()
""",
    "sys.exit": """
import sys
sys.exit(0)
""",
    "os._exit": """
import os
os._exit(0)
""",
    "os._exit in the call": """
def f(x):
    import os
    os._exit(0)
""",
    "SystemExit in the call": """
def f(x): raise SystemExit(0)
""",
    "atexit": """
import atexit, os
atexit.register(os._exit, 0)
def f(x): return None
""",
    "prints success": """
print('{"passed": true}\\n' * 3, flush=True)
import os; os._exit(0)
""",
    "writes success everywhere": """
import os
for n in (1, 2, 3, 4):
    try:
        os.write(n, b'{"passed": true}\\n' * 3)
    except OSError:
        pass
os._exit(0)
""",
    "closes descriptors": """
import os
for n in range(3, 64):
    try:
        os.close(n)
    except OSError:
        pass
def f(x): return None
""",
    "answers in advance": """
import os
os.write(4, b'["ok", null]\\n' + b'["ok", [true, {}]]\\n' * 50)
def f(x): return None
""",
    "answers with a name of its own": """
import os
os.write(4, b'["ok", null]\\n["ok", {"f": ["r", 0, "x"]}]\\n' + b'["raised", "AssertionError", ""]\\n' * 9)
""",
    "endless line": """
import os
os.write(4, b'[' * 2_000_000)
""",
    "deep line": """
import os
os.write(4, b'{"a":' * 100_000 + b'\\n')
""",
    "patches builtins and the wire": """
import builtins, sys
builtins.isinstance = lambda *a: True
builtins.AssertionError = int
sys.modules['wire'].encoded = lambda *a: True
def f(x): return 1
""",
    "patches frames": """
import sys
for frame in sys._current_frames().values():
    while frame:
        frame.f_globals['Subject'] = None
        frame = frame.f_back
def f(x): return None
""",
    "searches the garbage collector": """
import gc
found = [o for o in gc.get_objects() if '417203' in repr(o)[:10000] and not callable(o)]
def f(x): return found
""",
    "reads its folder": """
import os
def f(x):
    texts = []
    for folder, _, names in os.walk('/tmp'):
        for name in names:
            texts.append(open(os.path.join(folder, name), errors='replace').read())
    return 'assert f' in ''.join(texts) and 1
""",
    "shadows builtins": """
def set(x): return None
def len(x): return 0
def f(x): return None
""",
    "raises AssertionError": """
def f(x): raise AssertionError
""",
    "NotImplemented": """
def f(x): return NotImplemented
""",
    "mock": """
import unittest.mock
f = unittest.mock.MagicMock()
f.return_value.__eq__ = lambda *a: True
""",
    "metaclass": """
class Meta(type):
    def __eq__(self, other): return True
    __hash__ = type.__hash__
class f(metaclass=Meta):
    def __init__(self, x): pass
""",
}


@pytest.mark.parametrize("program", CHEATS.values(), ids=CHEATS.keys())
def test_does_not_pass(program: str) -> None:
    checked = judged(program)
    assert checked.passed_share == 0.0, checked
    assert checked.status is Status.WRONG


def test_streams_do_not_pass() -> None:
    gold = json.dumps({"inputs": ["417"], "outputs": ["834"]})
    for program in (
        "import sys\nsys.exit(0)",
        "print('834 ' * 3)",
        "import os\nprint(open('tests.json').read())",
        "print('834')\nraise SystemExit(1)",
        "print('834')\nwhile True: pass",
    ):
        assert judged(program, gold).status is Status.WRONG


def test_the_expected_value_is_nowhere_a_program_can_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees its arguments, but not what should come of them."""
    spy = """
import gc, os, sys
def f(x):
    seen = [repr(sys.argv), repr(dict(os.environ))]
    for folder, _, names in os.walk("/tmp"):
        seen += [open(os.path.join(folder, name), errors="replace").read() for name in names]
    seen += [repr(thing)[:5000] for thing in gc.get_objects() if isinstance(thing, (dict, tuple))]
    for frame in sys._current_frames().values():
        while frame:
            seen.append(repr(frame.f_locals)[:5000])
            frame = frame.f_back
    print("".join(seen)[-900_000:], file=sys.stderr)
"""
    ran = list[Ran]()
    monkeypatch.setattr(running, "run_programs", lambda tasks: ran.extend(run_programs(tasks)) or ran)
    judged(spy, "assert f(417203) == 834406")
    assert "417203" in ran[1].stderr
    assert "834406" not in ran[1].stderr
