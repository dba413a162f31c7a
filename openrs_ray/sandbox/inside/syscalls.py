"""System calls that a confined Python program may make, with their numbers on x86-64 and arm64.

Missing on purpose, among others: socket, connect, bind, ptrace, mount, unshare, setns, bpf, io_uring, keyctl, userfaultfd,
perf_event_open, memfd_create, shmget, process_vm_readv, sendmsg.
Source: linux/arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

Numbers = tuple[int | None, int | None]
"""None where the processor has no such call."""


def _table(text: str) -> dict[str, Numbers]:
    rows = [row.split() for row in text.split(",")]
    return {name: (_number(first), _number(second)) for name, first, second in rows}


def _number(word: str) -> int | None:
    return None if word == "-" else int(word)


PLAIN = _table(
    """
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
    preadv2 327 286, pwritev2 328 287, open 2 -, openat 257 56, close 3 57, close_range 436 436, stat 4 -, fstat 5 80,
    lstat 6 -, newfstatat 262 79, statx 332 291, poll 7 -, ppoll 271 73, lseek 8 62, mmap 9 222, mprotect 10 226,
    munmap 11 215, mremap 25 216, madvise 28 233, brk 12 214, msync 26 227, mincore 27 232, rt_sigaction 13 134,
    rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
    sigaltstack 131 132, access 21 -, faccessat 269 48, faccessat2 439 439, pipe 22 -, pipe2 293 59, select 23 -,
    pselect6 270 72, sched_yield 24 124, dup 32 23, dup2 33 -, dup3 292 24, pause 34 -, nanosleep 35 101,
    clock_nanosleep 230 115, getitimer 36 102, setitimer 38 103, alarm 37 -, getpid 39 172, gettid 186 178,
    getppid 110 173, getpgrp 111 -, getpgid 121 155, getsid 124 156, exit 60 93, exit_group 231 94, wait4 61 260,
    waitid 247 95, uname 63 160, flock 73 32, fsync 74 82, fdatasync 75 83, truncate 76 45, ftruncate 77 46,
    fallocate 285 47, fadvise64 221 223, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50,
    rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -,
    unlinkat 263 35, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, readlink 89 -, readlinkat 267 78,
    chmod 90 -, fchmod 91 52, fchmodat 268 53, utime 132 -, utimes 235 -, utimensat 280 88, umask 95 166,
    gettimeofday 96 169, time 201 -, getrusage 98 165, sysinfo 99 179, times 100 153, getrlimit 97 163,
    setrlimit 160 164, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148,
    getresgid 120 150, getgroups 115 158, capget 125 90, arch_prctl 158 -, set_tid_address 218 96,
    set_robust_list 273 99, get_robust_list 274 100, futex 202 98, futex_waitv 449 449, rseq 334 293,
    membarrier 324 283, restart_syscall 219 128, clock_gettime 228 113, clock_getres 229 114, timer_create 222 107,
    timer_settime 223 110, timer_gettime 224 108, timer_delete 226 111, timer_getoverrun 225 109,
    timerfd_create 283 85, timerfd_settime 286 86, timerfd_gettime 287 87, eventfd 284 -, eventfd2 290 19,
    epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
    epoll_pwait2 441 441, getrandom 318 278, execve 59 221, sched_getaffinity 204 123, sched_getparam 143 121,
    sched_getscheduler 145 120, getpriority 140 141, getcpu 309 168, sendto 44 206, recvfrom 45 207, shutdown 48 210,
    getsockname 51 204, getpeername 52 205, statfs 137 43, fstatfs 138 44, copy_file_range 326 285, sendfile 40 71,
    setpgid 109 154, setsid 112 157
    """
)
"""Allowed with any arguments."""

CONDITIONAL = _table(
    """
    fcntl 72 25, clone 56 220, clone3 435 435, fork 57 -, vfork 58 -, kill 62 129, tgkill 234 131, prctl 157 167,
    ioctl 16 29, prlimit64 302 261, socketpair 53 199
    """
)
"""Allowed with some arguments, which `seccomp.rules` names."""
