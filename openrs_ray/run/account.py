"""The cost of work over all attempts, in a file that a kill leaves a few seconds behind.

cost.json   {"spent": {"dollars": 12.32, "gpu_hours": 28.0, "hours": 7.0}, ...}
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from openrs_ray.common.files import damaged, read_json, write_json

FILE = "cost.json"
_BEAT_S = 5.0


@dataclass(frozen=True, slots=True)
class Spent:
    dollars: float = 0.0
    gpu_hours: float = 0.0
    hours: float = 0.0

    def plus(self, seconds: float, gpus: float, price: float) -> "Spent":
        """`price`: dollars per GPU hour."""
        hours = seconds / 3600
        return Spent(self.dollars + hours * gpus * price, self.gpu_hours + hours * gpus, self.hours + hours)

    @classmethod
    def total(cls, parts: "Iterable[Spent]") -> "Spent":
        several = list(parts)
        return cls(*(sum(getattr(spent, name) for spent in several) for name in cls.__slots__))

    @classmethod
    def read(cls, folder: Path) -> "Spent":
        """Zero without a file. UserError when it is damaged."""
        content = read_json(folder / FILE)
        return cls() if content is None else cls._checked(content.get("spent"), folder / FILE)

    @classmethod
    def _checked(cls, spent: Any, path: Path) -> "Spent":
        if not isinstance(spent, dict) or spent.keys() != {*cls.__slots__}:
            raise damaged(path, f"spent must have {', '.join(cls.__slots__)}")
        for name, value in spent.items():
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise damaged(path, f"{name} is {value}")
        return cls(**spent)


class Account:
    """Adds this attempt's cost to the account. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        price: float,
        gpus: Callable[[], float],
        age_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`price`: dollars per GPU hour. `gpus`: number held now. `age_s`: seconds already spent. UserError for damage."""
        self._path, self._price, self._gpus, self._clock = folder / FILE, price, gpus, clock
        content = read_json(self._path) or {}
        self.notes: dict[str, Any] = {name: value for name, value in content.items() if name != "spent"}
        """Other entries of the file."""
        self._spent = Spent.read(folder)
        self._counted = clock() - age_s
        self._lock, self._closed = threading.RLock(), threading.Event()

    def __enter__(self) -> Self:
        self.write()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self.write()

    def _beat(self) -> None:
        while not self._closed.wait(_BEAT_S):
            with suppress(OSError):  # the write at the end meets it, too, and says so
                self.write()

    def write(self) -> None:
        with self._lock:
            write_json(self._path, {"spent": asdict(self.spent()), **self.notes})

    def add(self, dollars: float, note: str) -> None:
        """Count dollars that are not time's: `dollars` is their sum so far over all attempts, kept as a note."""
        with self._lock:
            spent, more = self.spent(), dollars - self.notes.get(note, 0.0)
            self._spent = Spent(spent.dollars + max(0.0, more), spent.gpu_hours, spent.hours)
            # Never changed in place: the account's thread may be writing it.
            self.notes = self.notes | {note: max(dollars, self.notes.get(note, 0.0))}

    def spent(self) -> Spent:
        with self._lock:
            now = self._clock()
            self._spent = self._spent.plus(now - self._counted, self._gpus(), self._price)
            self._counted = now
            return self._spent
