"""The pool against checks that hang, crash, raise or fill the memory, and against kill -9."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import poisoned_checks
import pytest

from openrs_ray.errors import RunError
from openrs_ray.records import Status, Verdict
from openrs_ray.rewards.judge import WARM_UP, Judge
from openrs_ray.rewards.pool import CheckPool
from openrs_ray.rewards.records import JudgeItem

DEADLINE_S = 2.0


@pytest.fixture
def pool() -> Iterator[CheckPool[str, Verdict]]:
    with CheckPool(poisoned_checks.check, processes=2, deadline_s=DEADLINE_S, memory_gib=1.0) as pool:
        yield pool


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_verdicts_come_back_in_the_order_of_their_items(pool: CheckPool[str, Verdict]) -> None:
    items = ["sleep 0.05" if number % 7 == 0 else f"say {number}" for number in range(40)]
    verdicts = asyncio.run(pool.judge_many(items))
    assert [str(verdict.answer).rpartition(" by ")[0] for verdict in verdicts] == items
    assert len({str(verdict.answer).rpartition(" ")[2] for verdict in verdicts}) == 2, "both processes take part"


def test_a_hanging_check_is_a_timeout_and_disturbs_no_other(pool: CheckPool[str, Verdict]) -> None:
    pool.submit("say ready").result(30)
    started = time.monotonic()
    hanging = [pool.submit("hang"), pool.submit("hang")]
    others = [pool.submit(f"say {number}") for number in range(50)]
    verdicts = [future.result(60) for future in hanging]
    assert [verdict.status for verdict in verdicts] == [Status.TIMEOUT, Status.TIMEOUT]
    assert all(verdict.reward is None and not verdict.status.judged for verdict in verdicts)
    assert all(DEADLINE_S <= verdict.seconds < DEADLINE_S + 2 for verdict in verdicts)
    assert time.monotonic() - started >= DEADLINE_S
    # Both processes were killed with 50 items waiting: all of them are judged all the same.
    assert Counter(future.result(60).status for future in others) == {Status.CORRECT: 50}
    counts = pool.counts()
    assert (counts.checks, counts.timeouts, counts.errors, counts.replaced) == (53, 2, 0, 2)


def test_the_deadline_does_not_count_the_start_of_a_process() -> None:
    with CheckPool(poisoned_checks.check, processes=1, deadline_s=0.25, memory_gib=1.0) as pool:
        futures = [pool.submit(item) for item in ("hang", "say 1", "hang", "say 2")]
        statuses = [future.result(60).status for future in futures]
    assert statuses == [Status.TIMEOUT, Status.CORRECT, Status.TIMEOUT, Status.CORRECT]


def test_a_loaded_machine_does_not_change_a_verdict() -> None:
    """The check computes for 0.4 s of its 1 s, but has one CPU together with three others."""
    cpu = {min(os.sched_getaffinity(0))}
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        with CheckPool(poisoned_checks.check, processes=1, deadline_s=1.0, memory_gib=1.0) as pool:
            pool.submit("say ready").result(30)
            for pid in (*pool.process_ids(), *(burner.pid for burner in burners)):
                os.sched_setaffinity(pid, cpu)
            started = time.monotonic()
            assert pool.submit("compute 0.4").result(60).status is Status.CORRECT
            assert time.monotonic() - started > 1.0, "it waited longer than its deadline"
            assert pool.submit("compute 60").result(60).status is Status.TIMEOUT
            assert time.monotonic() - started < 20.0
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_a_killed_process_costs_its_sample_a_second_try_only(pool: CheckPool[str, Verdict], tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    future = pool.submit(f"mark_and_sleep {marks}")
    others = [pool.submit(f"say {number}") for number in range(20)]
    wait_until(lambda: marks.exists() and marks.read_text().endswith("\n"))
    victim = int(marks.read_text())
    assert victim in pool.process_ids()
    os.kill(victim, signal.SIGKILL)
    assert future.result(60).status is Status.CORRECT
    pids = [int(pid) for pid in marks.read_text().split()]
    assert len(pids) == 2 and pids[0] != pids[1], "it ran again, in another process"
    assert {other.result(60).status for other in others} == {Status.CORRECT}
    assert pool.counts().replaced == 1


def test_killing_every_idle_process_goes_unnoticed(pool: CheckPool[str, Verdict]) -> None:
    pool.submit("say ready").result(30)
    wait_until(lambda: len(pool.process_ids()) == 2)
    for pid in pool.process_ids():
        os.kill(pid, signal.SIGKILL)
    assert {pool.submit(f"say {number}").result(60).status for number in range(6)} == {Status.CORRECT}


def test_a_check_that_crashes_its_process_or_raises_is_an_error_with_its_reason(pool: CheckPool[str, Verdict]) -> None:
    crashed, raised, memory, fine = (
        pool.submit(item) for item in ("crash", "raise some reason", f"fill_memory {8 * 2**30}", "say fine")
    )
    assert fine.result(60).status is Status.CORRECT
    for future, reason in ((crashed, "exit code 17"), (raised, "some reason"), (memory, "MemoryError")):
        verdict = future.result(60)
        assert verdict.status is Status.ERROR and verdict.reward is None
        assert reason in verdict.detail
    counts = pool.counts()
    assert (counts.checks, counts.timeouts, counts.errors, counts.replaced) == (4, 0, 3, 2)


def test_processes_inherit_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("RAY_AUTH_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "A_KEY_OF_TOMORROW")
    for name in secrets:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    with CheckPool(poisoned_checks.check, processes=1, deadline_s=DEADLINE_S, memory_gib=1.0) as pool:
        seen = {name: pool.submit(f"environment {name}").result(30).answer for name in (*secrets, "LC_ALL", "PATH")}
    assert seen == dict.fromkeys(secrets) | {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]}


def test_processes_see_no_gpu_and_sort_alike(pool: CheckPool[str, Verdict]) -> None:
    assert pool.submit("environment CUDA_VISIBLE_DEVICES").result(30).answer == ""
    assert pool.submit("environment PYTHONHASHSEED").result(30).answer == "0"


def test_processes_are_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs_ray.rewards.pool.CHECKS_PER_PROCESS", 3)
    with CheckPool(poisoned_checks.check, processes=1, deadline_s=DEADLINE_S, memory_gib=1.0) as pool:
        answers = [str(pool.submit("say x").result(30).answer) for _ in range(7)]
        assert Counter(Counter(answers).values()) == {3: 2, 1: 1}
        assert pool.counts().replaced == 0


def test_renewal_waits_until_nothing_else_does_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openrs_ray.rewards.pool.CHECKS_PER_PROCESS", 3)
    with CheckPool(poisoned_checks.check, processes=1, deadline_s=DEADLINE_S, memory_gib=1.0) as pool:
        futures = [pool.submit("say x") for _ in range(10)]  # all wait before the first process is up
        answers = [str(future.result(30).answer) for future in futures]
        assert sorted(Counter(answers).values()) == [4, 6]


def test_close_ends_processes_and_fails_what_waits() -> None:
    pool = CheckPool(poisoned_checks.check, processes=1, deadline_s=60.0, memory_gib=1.0)
    pool.submit("say ready").result(30)
    (pid,) = pool.process_ids()
    under_way, waiting = pool.submit("hang"), pool.submit("say late")
    wait_until(under_way.running)
    pool.close()
    pool.close()
    assert not is_alive(pid)
    for future in (under_way, waiting):
        with pytest.raises(RunError, match="closed"):
            future.result(10)
    with pytest.raises(RunError, match="closed"):
        pool.submit("say too late")


def test_processes_that_cannot_start_fail_the_items_with_a_reason() -> None:
    pool = CheckPool(poisoned_checks.Unloadable(), processes=2, deadline_s=DEADLINE_S, memory_gib=1.0)
    with pool, pytest.raises(RunError, match="while it started"):
        pool.submit("say x").result(60)


def test_a_preparation_that_fails_is_named() -> None:
    pool = CheckPool(poisoned_checks.check, 1, DEADLINE_S, 1.0, prepare=poisoned_checks.refuse)
    with pool, pytest.raises(RunError, match="while it started: FileNotFoundError: the table of words"):
        pool.submit("say x").result(60)


def test_memory_kept_by_earlier_items_costs_later_ones_a_second_try_only() -> None:
    with CheckPool(poisoned_checks.check, processes=1, deadline_s=DEADLINE_S, memory_gib=0.5) as pool:
        futures = [pool.submit(f"keep_memory {150 * 2**20}") for _ in range(7)]
        assert [future.result(60).status for future in futures] == [Status.CORRECT] * 7
        counts = pool.counts()
        assert (counts.checks, counts.errors, counts.replaced) == (7, 0, 0)


def test_other_results_than_verdicts_and_the_part_that_hung() -> None:
    printed: list[str] = []
    with CheckPool[str, object](
        poisoned_checks.check, 1, 1.0, 1.0, failed=poisoned_checks.fail_as_text, printed=printed.append
    ) as pool:
        hung, raised = pool.submit("hang_in_part"), pool.submit("raise a reason")
        assert hung.result(60) == (
            "timeout after 1 s: killed at the deadline of 1 s of computing in my_file.py:my_function"
        )
        assert raised.result(60) == "error after 0 s: ValueError: a reason"
        assert (pool.counts().timeouts, pool.counts().errors) == (1, 1)
    assert printed == ["my_file.py:my_function: about to hang"]


def test_processes_that_a_check_has_started_end_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with CheckPool(poisoned_checks.check, processes=1, deadline_s=1.0, memory_gib=1.0) as pool:
        assert pool.submit(f"start_sleeper {pids}").result(60).status is Status.TIMEOUT
        wait_until(lambda: not is_alive(int(pids.read_text())), seconds=5)


def test_a_fork_does_not_answer_for_its_process(pool: CheckPool[str, Verdict]) -> None:
    verdicts = [pool.submit(item).result(60) for item in ("fork", "say x", "fork", "say y")]
    assert [verdict.status for verdict in verdicts] == [Status.CORRECT] * 4


def test_what_a_check_writes_into_the_pipe_costs_its_own_verdict(pool: CheckPool[str, Verdict]) -> None:
    broken, other = pool.submit("write_into_pipe"), pool.submit("say x")
    assert broken.result(20).status is Status.ERROR
    assert other.result(20).status is Status.CORRECT and pool.submit("say y").result(20).status is Status.CORRECT


def test_objects_of_a_users_classes_stay_in_their_process(pool: CheckPool[str, Verdict]) -> None:
    verdict = pool.submit("own_class").result(20)
    assert (verdict.status, verdict.reward) == (Status.ERROR, None) and "poisoned_checks._OwnText" in verdict.detail


def test_no_process_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import poisoned_checks\n"
        "from openrs_ray.rewards.pool import CheckPool\n"
        "if __name__ == '__main__':\n"
        "    pool = CheckPool(poisoned_checks.check, 2, 600.0, 1.0)\n"
        "    pool.submit('say ready').result(60)\n"
        "    hanging = pool.submit('hang')\n"
        "    while not hanging.running() or len(pool.process_ids()) < 2: pass\n"
        "    print(*pool.process_ids(), flush=True)\n"
        "    hanging.result()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_alive, pids))
        parent.kill()
    wait_until(lambda: not any(map(is_alive, pids)), seconds=10)


def test_one_poisoned_answer_leaves_the_rest_of_the_step_judged() -> None:
    poison = "|x|" * 300  # the parser tries every bar as an opening and as a closing one
    items = [JudgeItem(rf"so </think> \boxed{{{n}}}", 5, "stop", (str(n - n % 2),)) for n in range(30)]
    items.insert(7, JudgeItem(rf"so </think> \boxed{{{poison}}}", 130, "stop", ("3",)))
    with CheckPool(Judge({"accuracy": 2.0, "format": 1.0}, "boxed"), 2, DEADLINE_S, 2.0, WARM_UP) as pool:
        verdicts = asyncio.run(pool.judge_many(items))
        assert (pool.counts().checks, pool.counts().timeouts, pool.counts().replaced) == (31, 1, 1)
    assert verdicts[7].status is Status.TIMEOUT and verdicts[7].reward is None
    del verdicts[7]
    assert [verdict.reward for verdict in verdicts] == [3.0, 1.0] * 15
