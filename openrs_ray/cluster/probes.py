"""Probes of this machine. Each returns its finding or raises ProbeError; it may hang, so callers use `within`."""

import csv
import ctypes
import json
import math
import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_LOOK_S = 10.0


class ProbeError(Exception):
    """A failed or late probe, in one sentence."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """Example: Gpu(0, "NVIDIA A40", driver="580.95.05", total_mib=46068, used_mib=4)"""

    index: int
    name: str
    driver: str
    total_mib: int
    used_mib: int


def within(deadline_s: float, probe: Callable[[], T]) -> T:
    """Run one probe. ProbeError if it fails or is late."""
    return together(deadline_s, [probe])[0]


def together(deadline_s: float, probes: Sequence[Callable[[], T]]) -> list[T]:
    """Run probes in parallel processes, within one deadline; none outlives it."""
    context = multiprocessing.get_context("fork")  # no CUDA and no threads here yet, and nothing to import again
    processes, ends = [], []
    for probe in probes:
        end, other = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(probe, other), daemon=True)
        process.start()
        other.close()
        processes.append(process)
        ends.append(end)
    try:
        return _collect(ends, time.monotonic() + deadline_s, deadline_s)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _collect(ends: list[Connection], until: float, deadline_s: float) -> list[Any]:
    answers: dict[int, Any] = {}
    while len(answers) < len(ends):
        pending = {place: end for place, end in enumerate(ends) if place not in answers}
        ready = wait(list(pending.values()), max(0.0, until - time.monotonic()))
        if not ready:
            raise ProbeError(f"no answer within {deadline_s:.0f} s")
        for place, end in pending.items():
            if end in ready:
                answers[place] = _receive(end)
    return [answers[place] for place in range(len(ends))]


def _receive(end: Connection) -> Any:
    try:
        good, answer = end.recv()
    except EOFError:
        raise ProbeError("the probe's process died") from None
    if not good:
        raise ProbeError(answer)
    return answer


def _answer(probe: Callable[[], Any], pipe: Connection) -> None:
    # Libraries report on stderr what the answer says in one sentence.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        pipe.send((True, probe()))
    except Exception as error:  # whatever a driver or a library raises is the finding
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        pipe.send((False, first[:200]))


def gpus() -> list[Gpu]:
    """This machine's GPUs; none without nvidia-smi."""
    fields = "index,name,driver_version,memory.total,memory.used"
    if shutil.which("nvidia-smi") is None:
        return []
    run = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"], capture_output=True, text=True
    )
    if run.returncode:
        raise ProbeError(f"nvidia-smi failed: {(run.stdout + run.stderr).strip().splitlines()[0]}")
    return parse_gpus(run.stdout)


def planned_gpus(device: str) -> list[Gpu]:
    """GPUs of this machine for a plan; none for a CPU, or where they do not answer."""
    try:
        return within(_LOOK_S, gpus) if device != "cpu" else []
    except ProbeError:
        return []


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from nvidia-smi's columns: index, name, driver, total MiB, used MiB."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [Gpu(int(index), name, driver, int(total), int(used)) for index, name, driver, total, used in rows]


def torch_build() -> tuple[str, str | None, int | None]:
    """torch's version, its CUDA version (None: CPU build), and the driver's."""
    import torch

    return torch.__version__, torch.version.cuda, driver_cuda()


def driver_cuda() -> int | None:
    """13000 for 13.0; None without libcuda. Newer than the driver's own where forward-compatibility libraries come first."""
    version = ctypes.c_int()
    try:
        error = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return None if error else version.value


def peer_copies(gpus: int, mib: int = 64) -> float:
    """GB/s of the slowest copy between two GPUs.

    ProbeError when torch sees fewer, or bytes differ (with some IOMMU settings P2P copies carry garbage).
    """
    import torch

    slowest = float("inf")
    devices = range(gpus)
    if torch.cuda.device_count() != gpus:
        raise ProbeError(f"torch sees {torch.cuda.device_count()} of the {gpus} GPUs that nvidia-smi lists")
    for source in devices:
        sent = torch.randint(0, 256, (mib << 20,), dtype=torch.uint8, device=f"cuda:{source}")
        for target in devices:
            if target == source:
                continue
            sent.to(f"cuda:{target}")  # the first copy opens the path
            torch.cuda.synchronize(target)
            start = time.perf_counter()
            arrived = sent.to(f"cuda:{target}")
            torch.cuda.synchronize(target)
            slowest = min(slowest, (mib << 20) / 1e9 / (time.perf_counter() - start))
            if not torch.equal(arrived.cpu(), sent.cpu()):
                raise ProbeError(f"a copy from GPU {source} to GPU {target} arrived damaged")
    return slowest


def broadcast(processes: int, device: str, deadline_s: float, mib: int = 16) -> float:
    """GB/s of the slowest receiver of random bytes from process 0."""
    port = free_port()
    ranks = [partial(_broadcast_rank, rank, processes, device, port, deadline_s, mib) for rank in range(processes)]
    return min(together(deadline_s, ranks))


def _broadcast_rank(rank: int, processes: int, device: str, port: int, deadline_s: float, mib: int) -> float:
    from datetime import timedelta

    import torch
    from torch import distributed

    place = torch.device(f"cuda:{rank}" if device == "gpu" else "cpu")
    expected = torch.randint(0, 256, (mib << 20,), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    distributed.init_process_group(
        "nccl" if device == "gpu" else "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=deadline_s),
        device_id=place if device == "gpu" else None,
    )
    elapsed = 0.0
    for _ in range(2):  # the first one opens the connections
        data = (expected if rank == 0 else torch.zeros_like(expected)).to(place)
        start = time.perf_counter()
        distributed.broadcast(data, src=0)
        same = torch.equal(data.cpu(), expected)
        elapsed = time.perf_counter() - start
        if not same:
            raise ProbeError(f"a broadcast arrived damaged at process {rank}")
    distributed.destroy_process_group()
    return (mib << 20) / 1e9 / elapsed


def memory_bytes() -> int:
    """Available without swapping, within the container's limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free


def disk_bytes(folder: Path) -> int:
    """Free bytes. ProbeError if the folder is not writable."""
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ProbeError(f"{folder} cannot be written")
    return shutil.disk_usage(folder).free


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise ProbeError(f"no free port on {host}: {error}") from error
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """True if a local port answers."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ray_token() -> str | None:
    """Source of Ray's token, if any."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return str(path) if path.is_file() and path.stat().st_size else None


def count_parameters(folder: Path) -> int | None:
    """Parameters by the safetensors headers; None without such files."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if size > file.stat().st_size:  # the pointer that git leaves where git-lfs is not installed
                raise ProbeError(f"{file} is no safetensors file: fetch it with `git lfs pull`")
            header = json.loads(stream.read(size))
        for name, tensor in header.items():
            if name != "__metadata__":
                total += math.prod(tensor["shape"])
    return total or None


def hub_answers(name: str, kind: str) -> None:
    """ProbeError when a model or dataset is unreachable, absent or forbidden."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=10)
    except HfHubHTTPError as error:
        raise ProbeError(f"the Hub refuses {name}: {str(error).splitlines()[0]}") from error
