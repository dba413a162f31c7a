"""`python -m launch.probe [RECIPE] [--dotted.field VALUE ...] [--json]`: does this machine have what a run will need?

RECIPE is a file, or the name of a recipe or of a run (default: quickstart). `--help SECTION` lists the fields of a section.
One table: what, found, needed, verdict. Looks at this machine only; on a cluster run it on every node.
Exit code 0: all needed is there; 1: something is missing; 2: the recipe cannot be read.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.cli.command import command
from launch.cli.options import Parser, help_asked
from openrs_ray.cluster import probes as machine
from openrs_ray.cluster.disk import checkpoint_parts
from openrs_ray.cluster.layout import Device
from openrs_ray.cluster.probes import Gpu, ProbeError
from openrs_ray.cluster.sharing import ray_sessions, readable_by_others, writable_by_others
from openrs_ray.common.console import json_output, say, show_table
from openrs_ray.common.formatting import GIB
from openrs_ray.config.help import help_text
from openrs_ray.config.load import load_config
from openrs_ray.config.names import recipe_lines
from openrs_ray.config.schema import RunConfig
from openrs_ray.data.folder import data_form
from openrs_ray.models.bundled import SMOLLM2, looks_like_hub_id
from openrs_ray.sandbox.program import strength
from openrs_ray.sandbox.records import Strength

DEFAULT_RECIPE = "quickstart"
QUICK_S, IMPORT_S, GPU_S = 10.0, 60.0, 120.0
"""Deadlines: of a look, of importing torch, of starting all GPUs."""

RAY_PORTS = {6379: "Ray", 8265: "Ray's dashboard"}
BUILTIN_PARAMETERS = {"toy": 1_200_000, SMOLLM2: 134_515_008}
OLDEST_DRIVER = {"13": 580, "12": 525}
"""Oldest driver series by CUDA major version (CUDA's release notes, minor version compatibility)."""
OLD_DRIVER = "update the NVIDIA driver (docs/drivers.md)"

T = TypeVar("T")
Verdict = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True)
class Row:
    """`mend`: what to do about it."""

    what: str
    found: str
    needed: str
    verdict: Verdict = "ok"
    mend: str = ""
    figures: Mapping[str, float | None] = field(default_factory=dict)
    """What was found and is needed, as numbers, where it is one."""


def rows(config: RunConfig) -> Iterator[Row]:
    try:
        gpus = machine.within(QUICK_S, machine.gpus)
    except ProbeError as error:
        gpus = []
        yield Row("GPUs", str(error), "an answer", "missing", "repair the NVIDIA driver, then try nvidia-smi")
    wanted = config.placement.device
    device: Device = "gpu" if wanted == "gpu" or (wanted == "auto" and gpus) else "cpu"
    build = partial(machine.within, IMPORT_S, machine.torch_build)
    yield _guard("torch and driver", build, lambda found: torch_row(gpus, device, *found))
    if device == "gpu":
        yield gpu_row(gpus, config)
        yield _peer_row(gpus)
    yield _broadcast_row(gpus, device)
    try:
        parameters = parameters_of(config)
    except (ProbeError, ValueError, KeyError) as error:
        parameters = None
        yield Row("model", str(error), "a whole model", "missing", f"fetch {config.model.path} again")
    needed = memory_needed(config, device, parameters)
    mend = "end other programs, or take a machine with more memory"
    yield _guard("memory", _quick(machine.memory_bytes), lambda free: _size_row("memory", free, needed, mend))
    yield _guard("/dev/shm", _quick(partial(machine.disk_bytes, Path("/dev/shm"))), partial(_shm_row, device))
    folder = config.run.folder.expanduser()
    disk_row = partial(_disk_row, disk_needed(config, parameters), folder)
    yield _guard("disk", _quick(partial(machine.disk_bytes, folder)), disk_row)
    yield _guard("ports", _quick(_busy_ports), _ports_row)
    if any(task.runs_programs for task in config.tasks):
        mend = "docs/code.md says how"
        yield _guard("sandbox", partial(machine.within, IMPORT_S, strength), sandbox_row, "programs that can run", mend)
    yield token_row(os.environ.get("RAY_AUTH_MODE"), machine.ray_token(), bool(os.environ.get("RAY_ADDRESS")))
    yield from sharing_rows(machine.ray_token(), ray_sessions())
    yield from (_hub_row(name, kind) for name, kind in hub_ids(config))


def _guard(
    what: str,
    probe: Callable[[], T],
    row: Callable[[T], Row],
    needed: str = "an answer",
    mend: str = "mend what is named on the left",
) -> Row:
    """The row of a probe's finding, or of its error."""
    try:
        return row(probe())
    except ProbeError as error:
        return Row(what, str(error), needed, "missing", mend)


def _quick(probe: Callable[[], T]) -> Callable[[], T]:
    return partial(machine.within, QUICK_S, probe)


def _judged(
    what: str, found: str, needed: str, fits: bool, mend: str, figures: Mapping[str, float | None] | None = None
) -> Row:
    verdict: Verdict = "ok" if fits else "missing"
    return Row(what, found, needed, verdict, "" if fits else mend, figures or {})


def torch_row(gpus: list[Gpu], device: Device, version: str, cuda: str | None, offered: int | None = None) -> Row:
    """torch against the driver, by the CUDA version of libcuda (13000), else by its number."""
    what, found = "torch and driver", f"torch {version}" + (f" for CUDA {cuda}" if cuda else " (CPU build)")
    if device == "cpu":
        return Row(what, found, "CPU build")
    if not gpus:
        return Row(what, f"{found}, no GPU", "GPU", "missing", "placement.device auto or cpu runs without")
    found += f", driver {gpus[0].driver}"
    if cuda is None:
        return Row(what, found, "GPU build", "missing", "remove .venv, then: bash launch/setup.sh")
    major = cuda.split(".")[0]
    oldest = OLDEST_DRIVER.get(major, 0)
    if offered is not None:
        found += f" for CUDA {offered // 1000}.{offered % 1000 // 10}"
        fits = offered // 1000 >= int(major)
    else:
        fits = int(gpus[0].driver.split(".")[0]) >= oldest
    return _judged(what, found, f"driver {oldest} or newer", fits, OLD_DRIVER)


def gpu_row(gpus: list[Gpu], config: RunConfig) -> Row:
    """Unused GPUs (below 5 % of the memory taken) against the placement."""
    free = [gpu for gpu in gpus if gpu.used_mib < 0.05 * gpu.total_mib]
    busy = [f"GPU {gpu.index}: {gpu.used_mib:,} of {gpu.total_mib:,} MiB taken" for gpu in gpus if gpu not in free]
    found = "; ".join([f"{len(free)} of {len(gpus)} free", *busy])
    mend = "end the programs that use them, or lower placement.num_learner_gpus / num_rollout_gpus"
    figures = {"free": len(free), "gpus": len(gpus), "needed": config.num_gpus}
    return _judged("GPUs free", found, str(config.num_gpus), len(free) >= config.num_gpus, mend, figures)


def _peer_row(gpus: list[Gpu]) -> Row:
    what, needed = "copy between GPUs", "equal bytes"
    if len(gpus) < 2:
        return Row(what, f"skipped: {len(gpus)} GPU", "-")
    copies = partial(machine.within, GPU_S, partial(machine.peer_copies, len(gpus)))
    mend = (
        "GPUs not seen: unset CUDA_VISIBLE_DEVICES, mend torch and driver; damaged bytes: turn off ACS / the IOMMU, "
        "or set NCCL_P2P_DISABLE=1"
    )

    def row(speed: float) -> Row:
        return Row(what, f"equal bytes, slowest {speed:.1f} GB/s", needed, figures={"slowest_gb_per_s": speed})

    return _guard(what, copies, row, needed, mend)


def _broadcast_row(gpus: list[Gpu], device: Device) -> Row:
    needed = "equal bytes"
    if device == "gpu":
        what, count, deadline_s, mend = "broadcast over NCCL", len(gpus), GPU_S, "run again with NCCL_DEBUG=INFO"
    else:
        what, count, deadline_s = "broadcast over gloo", 2, IMPORT_S
        mend = "see whether a firewall blocks 127.0.0.1"
    if count < 2:
        return Row(what, f"skipped: {count} GPU", "-")
    broadcast = partial(machine.broadcast, count, device, deadline_s)

    def row(speed: float) -> Row:
        found = f"{count} processes, equal bytes, {speed:.1f} GB/s"
        return Row(what, found, needed, figures={"processes": count, "gb_per_s": speed})

    return _guard(what, broadcast, row, needed, mend)


def memory_needed(config: RunConfig, device: Device, parameters: int | None) -> float:
    """Rough bytes: an interpreter per engine and rank, and the weights."""
    ranks = config.placement.num_learner_gpus
    actors = config.num_engines + ranks
    if device == "gpu":  # where all ranks hold the weights at the same time while they load them
        return 4.0 * GIB * actors + (parameters or 0) * ranks * (2 if config.model.dtype == "bfloat16" else 4)
    weights = (parameters or 0) * (16 * ranks + 4 * config.num_engines)
    return 1.5 * GIB * actors + config.engine.cpu_cache_gib * GIB * config.num_engines + weights


def _shm_row(device: Device, free: int) -> Row:
    mend = "in a container: --shm-size=8g; else: mount -o remount,size=8G /dev/shm"
    return _size_row("/dev/shm", free, (4 if device == "gpu" else 0.5) * GIB, mend)


def disk_needed(config: RunConfig, parameters: int | None) -> float | None:
    return None if parameters is None else sum(checkpoint_parts(config, parameters).values())


def parameters_of(config: RunConfig) -> int | None:
    path = config.model.path
    return BUILTIN_PARAMETERS.get(path) or machine.count_parameters(Path(path).expanduser())


def _disk_row(needed: float | None, folder: Path, free: int) -> Row:
    what = f"disk at {folder}"
    if needed is None:
        return Row(
            what,
            _gib(free),
            "unknown",
            "note",
            "launch.train --dry-run plans it for a model on the Hub",
            figures={"free_bytes": free, "needed_bytes": None},
        )
    return _size_row(what, free, needed, "make room, set run.folder elsewhere or lower checkpoint.keep_last")


def _size_row(what: str, free: float, needed: float, mend: str) -> Row:
    figures = {"free_bytes": free, "needed_bytes": needed}
    return _judged(what, f"{_gib(free)} free", _gib(needed), free >= needed, mend, figures)


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f} GiB"


def _busy_ports() -> list[int]:
    machine.free_port()
    return [port for port in RAY_PORTS if machine.listening(port)]


def _ports_row(busy: list[int]) -> Row:
    needed = "free, or a Ray of yours"
    if not busy:
        return Row("ports", f"{', '.join(map(str, RAY_PORTS))} free", needed)
    taken = ", ".join(f"{port} ({RAY_PORTS[port]}) is taken" for port in busy)
    return Row("ports", taken, needed, "note", "if that is no Ray of yours: ray start --port P --dashboard-port D")


def token_row(mode: str | None, token: str | None, cluster: bool) -> Row:
    what = "Ray's token"
    found = f"RAY_AUTH_MODE={mode or '(not set)'}, token {f'in {token}' if token else 'nowhere'}"
    if mode == "token" and not token:
        mend = "ray get-auth-token --generate, and copy ~/.ray/auth_token to all nodes"
        return Row(what, found, "a token", "missing", mend)
    if token and mode != "token":
        mend = "export RAY_AUTH_MODE=token before ray job submit, or it is refused as unauthorized"
        return Row(what, found, "mode token to submit jobs", "note", mend)
    if cluster and mode != "token":
        return Row(what, found, "token authentication", "note", "anyone who reaches the cluster can run programs on it")
    return Row(what, found, "mode token to submit jobs" if token else "nothing for a local run")


def sandbox_row(found: Strength) -> Row:
    """Walls around the programs of a task."""
    what, needed = "sandbox", "namespaces and seccomp"
    walls = ", ".join(found.walls) or "limits only"
    return Row(what, walls, needed) if found.is_full else Row(what, walls, needed, "note", "docs/code.md says how")


def sharing_rows(token: str | None, sessions: Sequence[Path]) -> Iterator[Row]:
    what, needed = "other users here", "nothing of Ray's"
    if token and readable_by_others(Path(token)):
        yield Row(what, f"can read {token}", needed, "note", f"chmod 600 {token}")
    for session in filter(writable_by_others, sessions):
        root = session.parent
        ours = root.stat().st_uid == os.getuid()
        mend = f"chmod 700 {root}" if ours else "start it with --temp-dir in a folder that only you can open"
        yield Row(what, f"can write to {session}", needed, "note", mend)


def _hub_row(name: str, kind: str) -> Row:
    what, needed = f"Hub: {name}", f"the {kind}"
    answers = partial(machine.within, 3 * QUICK_S, partial(machine.hub_answers, name, kind))
    mend = "reach huggingface.co (HF_TOKEN for a gated one), or download it elsewhere and give its folder or file"
    return _guard(what, answers, lambda _: Row(what, "answers", needed), needed, mend)


def hub_ids(config: RunConfig) -> list[tuple[str, str]]:
    """(id, kind) of all that the run fetches from the Hub."""
    data = (path for task in config.tasks for path in (task.data.path, task.held_out.path))
    named = [(config.model.path, "model"), *((path, "dataset") for path in data)]
    return [
        (path, kind)
        for path, kind in dict.fromkeys(named)
        if path and looks_like_hub_id(path) and not data_form(path) and not Path(path).exists()
    ]


@command
def main(arguments: list[str]) -> int:
    console = Console(highlight=False)
    if (section := help_asked(arguments)) is not None:
        text = help_text(section) if section else "\n".join([str(__doc__), *recipe_lines("run")])
        say(console, text)
        return 0
    parser = Parser("probe", None)
    parser.add_argument("recipe", nargs="?", default=DEFAULT_RECIPE)
    parser.add_json()
    options, fields = parser.parse_with_fields(arguments)
    config = load_config(options.recipe, fields, parser.flags)
    with json_output(options.json) as document:
        found = [*rows(config)]  # no spinner meanwhile: the probes fork, and forking is safe only without threads
        missing = sum(row.verdict == "missing" for row in found)
        document({"run": config.run.name, "missing": missing, "rows": found})
        if not options.json:
            show_table(console, _table(config, found))
            console.print(f"{missing} missing" if missing else "nothing is missing")
    return 1 if missing else 0


def _table(config: RunConfig, found: Sequence[Row]) -> Table:
    colours = {"ok": "green", "note": "yellow", "missing": "red"}
    table = Table(title=f"What run {config.run.name} needs of this machine")
    for heading in ("what", "found", "needed", "verdict"):
        table.add_column(heading, overflow="fold")
    for row in found:
        verdict = Text.assemble((row.verdict, colours[row.verdict]), f": {row.mend}" if row.mend else "")
        table.add_row(Text(row.what), Text(row.found), Text(row.needed), verdict)
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
