"""The problems of a run, by digests: `problems.json`, written when it begins."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from openrs_ray.common.files import damaged, read_json, write_json

FILE = "problems.json"


@dataclass(frozen=True, slots=True)
class RunProblems:
    fingerprint: str
    """Hash of all prompts and golds in order, the evaluation's included."""
    count: int
    """Problems to train on."""
    texts: tuple[str, ...] = ()
    """Digests in order; none from older versions."""
    model: str = ""
    """Digest of the start model's folder; empty for a Hub id, a built-in or from an older version."""
    tasks: dict[str, int] = field(default_factory=dict)
    """Problems by task, in order; empty for a run of one data section."""
    user_code: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the user's own files; empty without any, or from an older version."""
    prompt_tokens: tuple[int, ...] = ()
    """Length of each prompt; none where no stage of the run goes by them."""

    @classmethod
    def read(cls, run_folder: Path) -> "RunProblems | None":
        """None without a file. UserError when it is damaged."""
        path = run_folder / FILE
        content = read_json(path)
        if content is None:
            return None
        fingerprint, count, texts = content.get("fingerprint"), content.get("count"), content.get("texts", [])
        if not (isinstance(fingerprint, str) and isinstance(count, int) and count > 0 and isinstance(texts, list)):
            raise damaged(path, "it must have a fingerprint and a count")
        if texts and len(texts) != count:
            raise damaged(path, f"it has {len(texts)} texts of {count} problems")
        tasks = content.get("tasks", {})
        counts: list[Any] = list(tasks.values()) if isinstance(tasks, dict) else [None]
        if not all(isinstance(each, int) and each > 0 for each in counts) or (counts and sum(counts) != count):
            raise damaged(path, f"its tasks do not have {count} problems")
        code = content.get("user_code", {})
        if not isinstance(code, dict) or not all(isinstance(digest, str) for digest in code.values()):
            raise damaged(path, "its user_code must have a hash for each file")
        lengths = content.get("prompt_tokens", [])
        if not isinstance(lengths, list) or not all(isinstance(each, int) for each in lengths):
            raise damaged(path, "its prompt_tokens must be whole numbers")
        if lengths and len(lengths) != count:
            raise damaged(path, f"it has {len(lengths)} prompt_tokens of {count} problems")
        texts, model = tuple(map(str, texts)), str(content.get("model", ""))
        return cls(fingerprint, count, texts, model, tasks, code, tuple(lengths))

    def write(self, run_folder: Path) -> None:
        newer = ("tasks", "user_code", "prompt_tokens")
        write_json(
            run_folder / FILE, {name: value for name, value in asdict(self).items() if value or name not in newer}
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Problems by task; the only task of a run with one data section has the name ""."""
        return self.tasks or {"": self.count}


def text_digests(texts: Iterable[str]) -> tuple[str, ...]:
    """First 16 hexadecimal digits of each text's SHA-256."""
    return tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)
