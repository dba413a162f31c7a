"""Main of a launcher: confines one program in a child process, waits for its end and kills what it left.

A fresh interpreter, started by `openrs_ray.sandbox.process`; arguments are the descriptors of the job and of the control socket.
On that socket it reports one line when the program runs (walls) and one when it has ended (status, seconds of computing), or one
that says what failed; it kills the program when the socket is closed.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from openrs_ray.sandbox.inside import landlock, seccomp
from openrs_ray.sandbox.inside.job import MAIN, Job
from openrs_ray.sandbox.inside.kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    drop_capabilities,
    prctl,
    unshare,
)
from openrs_ray.sandbox.inside.root import DEVICES, enter_new_root

if TYPE_CHECKING:
    from typing import NoReturn

_NAMESPACES = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
_INSIDE_ID = 1000
_FIRST_OWN_ID = 1_879_000_000
"""User ids that no system gives out; the launcher's process id is added, so that no two programs share one."""
_THREADS = 32
_OPEN_FILES = 64
_FIRST_FREE_DESCRIPTOR = 10


def main(job_descriptor: int, control: int) -> None:
    with open(job_descriptor, "rb") as content:
        job = Job.unpacked(content.read())
    for descriptor in (control, *job.channel):
        os.set_inheritable(descriptor, False)
    try:
        Launcher(job, control).run()
    except OSError as error:
        _tell(control, f"failed {error}")
    finally:
        if not job.has_namespaces:
            _remove(job.scratch)


class Launcher:
    """Runs a job; its namespaces are the launcher's own, but for the process namespace, which begins with its child."""

    def __init__(self, job: Job, control: int) -> None:
        self._job, self._control = job, control
        self._owner = (os.getuid(), os.getgid())

    def run(self) -> None:
        """Start the program and stay until it has ended. OSError when it cannot be started."""
        with suppress(OSError):  # a machine without memory then kills the program before anything else
            _write("/proc/self/oom_score_adj", "1000")
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        counts_tasks = self._job.route != "process" and not (self._job.route == "user" and _is_true_root())
        self._enter()
        self._write_files()
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            Program(self._job, self._owner, counts_tasks, told).become()
        for descriptor in (told, 0, 1, 2, *self._job.channel):  # their ends are the program's
            os.close(descriptor)
        try:
            _tell(self._control, f"walls {' '.join(self._walls_told(ready))}")
            ended = os.pidfd_open(pid)
            by_itself = ended in select.select([ended, self._control], [], [])[0]
        finally:
            status, usage = _end(pid)
        _tell(self._control, f"status {status} {usage.ru_utime + usage.ru_stime} {by_itself:d}")

    def _enter(self) -> None:
        """Namespaces and file system, as the route says."""
        job = self._job
        if job.route in ("privileged", "other_user"):
            self._owner = (_FIRST_OWN_ID + os.getpid(),) * 2
        if job.route == "privileged":
            unshare(_NAMESPACES)
        elif job.route == "user":
            unshare(_NAMESPACES | CLONE_NEWUSER)
            _write("/proc/self/setgroups", "deny")
            for name, number in zip(("uid_map", "gid_map"), self._owner, strict=True):
                _write(f"/proc/self/{name}", f"{_INSIDE_ID} {number} 1")
            self._owner = (_INSIDE_ID, _INSIDE_ID)
        if job.has_namespaces:
            enter_new_root(job.readable, job.scratch, job.scratch_bytes, self._owner)
        else:
            os.chown(job.scratch, *self._owner)

    def _write_files(self) -> None:
        for name, text in {**self._job.files, MAIN: self._job.source}.items():
            path = os.path.join(self._job.scratch, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            _write(path, text)

    def _walls_told(self, ready: int) -> list[str]:
        """Walls that the child has raised; OSError with what kept it from becoming the program."""
        with open(ready, "rb") as pipe:
            told, _, failure = pipe.read().decode(errors="replace").partition("\n")
        if failure:
            raise OSError(failure)
        walls = told.split()
        if self._job.walls not in (None, walls):
            raise OSError(f"its walls would be {walls}, and not {self._job.walls} as at first")
        return walls


class Program:
    """The child's side, up to the moment when it becomes the program."""

    def __init__(self, job: Job, owner: tuple[int, int], counts_tasks: bool, told: int) -> None:
        """`told`: pipe for the walls, and for what fails; its end says that the program runs.

        `counts_tasks`: the kernel counts processes and threads of this program alone. Where not, it gets no more of them.
        """
        self._job, self._owner, self._counts_tasks = job, owner, counts_tasks
        self._told = fcntl.fcntl(told, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_DESCRIPTOR)

    def become(self) -> NoReturn:
        job = self._job
        try:
            os.setsid()
            os.chdir(job.scratch)
            self._place_channel()
            self._become_owner()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # from here on: a change of user would undo it
            self._limit()
            # The launcher's end is noticed here, as a broken pipe, if it came before the line above.
            os.write(self._told, " ".join(self._walls()).encode())
            arguments = [*job.arguments, os.path.join(job.scratch, MAIN)]
            os.execve(arguments[0], arguments, job.environment)
        except BaseException as error:  # whatever it is, this process must not go on as a second launcher
            os.write(self._told, f"\n{type(error).__name__}: {error}".encode(errors="replace"))
        finally:
            os._exit(1)

    def _place_channel(self) -> None:
        """The two ends become descriptors 3 and 4."""
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_DESCRIPTOR) for end in self._job.channel]
        for place, end in enumerate(ends, start=3):
            os.dup2(end, place)

    def _become_owner(self) -> None:
        user, group = self._owner
        if self._job.route in ("privileged", "other_user"):
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        drop_capabilities()
        prctl(PR_SET_NO_NEW_PRIVS, 1)

    def _limit(self) -> None:
        job = self._job
        most_tasks = max(job.processes, _THREADS if job.processes == 1 else 1)
        limits = {
            resource.RLIMIT_CPU: job.cpu_s,
            resource.RLIMIT_AS: job.memory_bytes,
            resource.RLIMIT_FSIZE: job.scratch_bytes,
            resource.RLIMIT_NOFILE: _OPEN_FILES,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        if self._counts_tasks:
            limits[resource.RLIMIT_NPROC] = most_tasks
        for kind, most in limits.items():
            _, hard = resource.getrlimit(kind)
            value = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (value, value))

    def _walls(self) -> list[str]:
        """Raises the walls that need no namespace, and names all that stand."""
        job = self._job
        walls = ["namespaces"] if job.has_namespaces else []
        walls += ["other_user"] if job.route != "process" else []
        with suppress(OSError):
            readable = ["/"] if job.has_namespaces else [*job.readable, *DEVICES]
            landlock.restrict_files(readable, [job.scratch, "/dev/null"])
            walls.append("landlock")
        with suppress(OSError):
            several = job.has_namespaces and self._counts_tasks and job.processes > 1
            seccomp.install(os.getpid(), several, threads=self._counts_tasks, signals=job.has_namespaces)
            walls.append("seccomp")
        return walls


def _is_true_root() -> bool:
    """True for the system's root, whose processes no limit counts, unlike those of a container's root."""
    with open("/proc/self/uid_map") as file:
        return os.getuid() == 0 and file.read().split() == ["0", "0", str(2**32 - 1)]


def _end(pid: int) -> tuple[int, resource.struct_rusage]:
    """Kill the child and what it left; its status and usage."""
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    while children := _children():  # none where the program had a process namespace
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return status, usage


def _children() -> list[int]:
    """Orphans of the program, which are this subreaper's children."""
    with suppress(FileNotFoundError), open(f"/proc/self/task/{os.getpid()}/children") as listed:
        return [int(pid) for pid in listed.read().split()]
    return []


def _remove(folder: str) -> None:
    """Done here, since the caller may have been killed."""
    import shutil  # slow to load, and not needed where the folder goes with its namespace

    shutil.rmtree(folder, ignore_errors=True)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
        file.write(text)


def _tell(control: int, line: str) -> None:
    with suppress(OSError):  # nobody is left to hear it
        os.write(control, line.replace("\n", " ").encode() + b"\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
