"""Confined programs that mean no harm, the ends they come to, and the process that called them."""

import os
import resource
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from confined import run_on

from openrs_ray.sandbox.inside import seccomp
from openrs_ray.sandbox.inside.syscalls import CONDITIONAL, PLAIN
from openrs_ray.sandbox.process import Running, Task, run_together
from openrs_ray.sandbox.program import run_program, run_programs, strength
from openrs_ray.sandbox.records import Limits, Outcome, SandboxFailed, Strength


def test_input_files_and_output() -> None:
    source = "import helper, sys\nprint(helper.double(input()), open('data/table.txt').read()); print('warned', file=sys.stderr)"
    files = {"helper.py": "def double(text):\n    return text * 2", "data/table.txt": "1,2 – ü"}
    ran = run_program(source, stdin="ab\n", files=files)
    assert (ran.outcome, ran.stdout, ran.stderr, ran.exit_code) == (Outcome.FINISHED, "abab 1,2 – ü\n", "warned\n", 0)
    assert 0 < ran.cpu_s < ran.seconds + 1


def test_large_input_and_output_that_cross() -> None:
    text = "0123456789\n" * 300_000
    ran = run_program(
        "import sys\nfor line in sys.stdin: print(line, end='')", stdin=text, limits=Limits(output_bytes=1 << 23)
    )
    assert ran.stdout == text


def test_standard_library_and_packages_work() -> None:
    ran = run_program(
        """
import asyncio, concurrent.futures, decimal, fractions, hashlib, json, queue, random, re, sqlite3, tempfile, threading, time
import numpy
async def later():
    await asyncio.sleep(0.001)
    return 1
print(asyncio.run(later()))
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(len, ["a", "bb"])))
with tempfile.TemporaryFile() as file:
    file.write(b"text")
print(sqlite3.connect(":memory:").execute("select 1 + 1").fetchone()[0], numpy.linalg.norm([3.0, 4.0]))
print(time.perf_counter() > 0, random.random() < 1, hashlib.sha256(b"x").hexdigest()[:4])
""",
        limits=Limits(cpu_s=20),
    )
    assert ran.stdout.split() == ["1", "3", "2", "5.0", "True", "True", "2d71"], ran.stderr


def test_a_set_has_the_same_order_each_time() -> None:
    source = "print(list({'a', 'b', 'c', 'd', 'e'}))"
    assert run_program(source).stdout == run_program(source).stdout


@pytest.mark.parametrize(
    ("source", "outcome", "detail", "code"),
    [
        ("import sys; sys.exit(3)", Outcome.FAILED, "it ended with exit code 3", 3),
        ("1 / 0", Outcome.FAILED, "ZeroDivisionError: division by zero", 1),
        ("def f(:", Outcome.FAILED, "SyntaxError: invalid syntax", 1),
        ("import ctypes; ctypes.string_at(0)", Outcome.FAILED, "it died of SIGSEGV", None),
        ("import os; os.abort()", Outcome.FAILED, "it died of SIG", None),
        ("def f(): f()\nf()", Outcome.FAILED, "RecursionError: maximum recursion depth exceeded", 1),
        ("x = 'a' * 10**10", Outcome.MEMORY, "it asked for more than 1 GiB of memory", 1),
        ("\0", Outcome.FAILED, "SyntaxError", 1),
        ("'\ud800'", Outcome.FAILED, "SyntaxError", 1),
    ],
)
def test_ends(source: str, outcome: Outcome, detail: str, code: int | None) -> None:
    ran = run_program(source)
    assert (ran.outcome, ran.exit_code) == (outcome, code), ran
    assert detail in ran.detail


def test_the_first_of_the_list_ends_the_others() -> None:
    first, second = run_programs([Task("print('done')"), Task("import time; time.sleep(600)")])
    assert (first.outcome, second.outcome) == (Outcome.FINISHED, Outcome.TIMEOUT)
    assert second.seconds < 20


def test_an_end_that_is_told_after_that_of_the_first_stays_the_programs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, the first sees that the other has ended, and ends, before the other's launcher has said why."""
    strength()
    read, ended = Running.read, set[str]()

    def late(self: Running, name: str, selector: selectors.BaseSelector) -> None:
        source = self._task.source
        if name == "control" and "walls" in self._report and source == quits.source and waits.source not in ended:
            return
        read(self, name, selector)
        if self.ended:
            ended.add(source)

    monkeypatch.setattr(Running, "read", late)
    (own, theirs), (back, there) = os.pipe(), os.pipe()
    waits = Task("import os\nassert os.read(3, 1) == b''", channel=(own, there))
    quits = Task("raise SystemExit(3)", channel=(back, theirs))
    first, other = run_programs([waits, quits])
    assert first.outcome is Outcome.FINISHED, first
    assert (other.outcome, other.detail) == (Outcome.FAILED, "it ended with exit code 3")


@pytest.mark.parametrize("name", ["../up.py", "/etc/x", "a/../../b", ""])
def test_a_file_lies_in_the_scratch_folder(name: str) -> None:
    with pytest.raises(ValueError, match="scratch folder"):
        run_program("", files={name: "x"})


def test_threads_may_call_it() -> None:
    found = dict[int, str]()
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: run_program(f"print({n} * 2)").stdout})) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"{2 * n}\n" for n in range(4)}


def test_works_in_a_checking_process_with_limited_memory() -> None:
    """The limit of `rewards.memory_gib` is inherited: a program gets what it asks for, or what is left of that."""
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, ({2 << 30}, {2 << 30}))
from openrs_ray.sandbox.program import run_program
from openrs_ray.sandbox.records import Limits
print(run_program("print(1)").stdout, run_program("x = bytearray(3 << 30)", limits=Limits(memory_gib=8)).outcome)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["1", "memory"], run.stderr


@pytest.mark.parametrize("route", ["privileged", "user", "process"])
def test_nothing_is_left_when_the_caller_is_killed(route: str) -> None:
    run_on(route, "pass")  # skips where there is no such route
    mark = f"orphan-{os.getpid() % 10**6}"
    program = f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{mark}'); time.sleep(600)"
    code = f"""
from openrs_ray.sandbox.process import Task, run_together
run_together([Task({program!r})], {route!r}, None)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as caller:
        wait_for(lambda: any(name == mark for name in names()))
        launchers = psutil.Process(caller.pid).children(recursive=True)
        assert launchers
        caller.send_signal(signal.SIGKILL)
    wait_for(
        lambda: mark not in names() and not any(one.is_running() and one.status() != "zombie" for one in launchers)
    )


@pytest.mark.parametrize("route", ["other_user", "process"])
def test_no_folder_is_left_when_the_caller_is_killed(route: str, tmp_path: Path) -> None:
    run_on(route, "pass")
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # for the other user
    program = "open('busy', 'w').close(); import time; time.sleep(600)"
    code = f"""
from openrs_ray.sandbox.process import Task, run_together
run_together([Task({program!r})], {route!r}, None)
"""
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"TMPDIR": str(tmp_path)}) as caller:
        wait_for(lambda: any(tmp_path.glob("openrs-sandbox-*/busy")))
        caller.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(tmp_path.iterdir()))


@pytest.mark.parametrize("route", ["privileged", "user", "process"])
def test_nothing_is_left_when_the_launcher_is_killed(route: str) -> None:
    """By the kernel, for want of memory: the program ends with it, and the caller is told."""
    run_on(route, "pass")
    mark = f"left-{os.getpid() % 10**6}"
    program = f"import ctypes, time; ctypes.CDLL(None).prctl(15, b'{mark}'); time.sleep(600)"
    raised = list[Exception]()

    def call() -> None:
        try:
            run_together([Task(program)], route, None)[0].ran()
        except SandboxFailed as error:
            raised.append(error)

    before = {child.pid for child in psutil.Process().children()}
    thread = threading.Thread(target=call)
    thread.start()
    wait_for(lambda: mark in names())
    for child in psutil.Process().children():
        if child.pid not in before and "-I" in child.cmdline():
            child.kill()
    thread.join(30)
    assert not thread.is_alive()
    assert raised
    wait_for(lambda: mark not in names())


def test_a_broken_machine_is_no_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    strength()
    monkeypatch.setattr("openrs_ray.sandbox.interpreter.executable", lambda: "/nowhere/python")
    with pytest.raises(SandboxFailed, match="could not be started"):
        run_program("print(1)")


def test_a_wall_that_is_missing_later_is_an_error() -> None:
    with pytest.raises(SandboxFailed, match="as at first"):
        run_together([Task("print(1)")], strength().route, ["seccomp"])[0].ran()


def test_strength_names_what_is_missing() -> None:
    assert Strength("user", ["namespaces", "other_user", "landlock", "seccomp"]).sentence == ""
    sentence = Strength("process", ["seccomp"]).sentence
    assert "namespaces" in sentence and "Landlock" in sentence and "filter" not in sentence


def test_starts_quickly() -> None:
    """A loose bound for busy machines; alone it takes about 40 ms."""
    run_program("pass")
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(5):
        run_program("pass")
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime) / 5 < 0.2


# The filter of system calls, run by an interpreter of its own for both processors


@pytest.mark.parametrize(("machine", "architecture", "column"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)])
def test_filter(machine: str, architecture: int, column: int) -> None:
    code = seccomp.assembled(seccomp.rules(77, processes=False, threads=True, signals=False), machine)

    def result(name: str, *arguments: int) -> int:
        number = (PLAIN | CONDITIONAL)[name][column]
        assert number is not None
        return interpreted(code, number, architecture, arguments)

    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    assert all(result(name) == allow for name in PLAIN if PLAIN[name][column] is not None)
    assert result("clone", 0x3D0F00) == allow  # the flags of pthread_create
    assert result("clone", 17) == refuse  # those of fork
    assert result("clone", 0x10000 | 0x10000000) == refuse
    assert result("kill", 77, 9) == allow
    assert result("kill", 78, 9) == result("kill", 2**32 - 1, 9) == refuse
    assert result("prctl", 15) == allow and result("prctl", 1, 0) == refuse
    assert result("ioctl", 0, 0x5401) == allow and result("ioctl", 0, 0x5412) == refuse
    assert result("fcntl", 0, 3) == allow and result("fcntl", 0, 8) == refuse
    assert result("prlimit64", 0) == allow and result("prlimit64", 1) == refuse
    assert (
        result("socketpair", 1, 0x80001) == allow and result("socketpair", 1, 2) == result("socketpair", 2, 1) == refuse
    )
    assert result("clone3") == interpreted(code, 9999, architecture) == 0x00050000 | 38
    assert interpreted(code, (41, 198)[column], architecture) == refuse
    assert interpreted(code, 0, 0x40000003) == interpreted(code, 0x40000000, architecture) == kill


def interpreted(code: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=iIQ6Q", number, architecture, 0, *padded)
    steps = list(struct.iter_unpack("HBBI", code))
    register = place = 0
    while True:
        operation, if_true, if_false, value = steps[place]
        place += 1
        if operation == 0x20:
            register = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x54:
            register &= value
        elif operation == 0x06:
            return value
        else:
            holds = register == value if operation == 0x15 else register >= value
            place += if_true if holds else if_false


def test_system_call_numbers_are_the_kernels() -> None:
    headers = {
        "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "aarch64": "/usr/include/asm-generic/unistd.h",
    }
    path = Path(headers.get(os.uname().machine, "/nowhere"))
    if not path.exists():
        pytest.skip("the kernel's headers are not installed")
    defined = [line.split() for line in path.read_text().splitlines() if line.startswith("#define __NR_")]
    numbers = {words[1].removeprefix("__NR_"): int(words[2]) for words in defined if words[2:] and words[2].isdigit()}
    column = list(headers).index(os.uname().machine)
    own = {name: numbers_[column] for name, numbers_ in (PLAIN | CONDITIONAL).items() if name in numbers}
    assert len(own) > 100
    assert own == {name: numbers[name] for name in own}


def names() -> set[str]:
    return {process.info["name"] for process in psutil.process_iter(["name"])}


def wait_for(holds: object, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
