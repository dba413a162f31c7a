"""The page beside a run answers at once, yields the CPU, and is gone when the run is, however that ends."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from made_run import made_run
from places import PYTHONPATH, ROOT

RUN = """
import sys
from pathlib import Path
from openrs_ray.report.beside import page_beside
with page_beside(Path(sys.argv[1])) as address:
    print(address, flush=True)
    sys.stdin.readline()
print("ended", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with a page beside it; a line ends the page, another one the process."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(made_run(tmp_path / "run"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
    )
    yield process
    process.kill()
    process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{address}data/runs", timeout=30) as response:
        return bool(response.status == 200)
    return False


def page_of(process: subprocess.Popen[str]) -> psutil.Process:
    (page,) = psutil.Process(process.pid).children()
    return page


def test_it_answers_at_the_lowest_priority_and_ends_with_its_block(run: subprocess.Popen[str]) -> None:
    address = line(run)
    assert answers(address)
    page = page_of(run)
    assert page.nice() == 19 and address.split("/")[3] not in " ".join(page.cmdline())
    assert run.stdin is not None
    run.stdin.write("\n")
    run.stdin.flush()
    assert line(run) == "ended" and not answers(address)
    assert not psutil.pid_exists(page.pid) and run.poll() is None


def test_it_does_not_outlive_a_run_that_is_killed(run: subprocess.Popen[str]) -> None:
    address = line(run)
    assert answers(address)
    page = page_of(run)
    run.send_signal(signal.SIGKILL)
    page.wait(10)
    assert not answers(address)
