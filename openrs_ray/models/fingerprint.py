"""Digest of a model's folder."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openrs_ray.models.bundled import MODELS

_SAYS_NOTHING = ("_name_or_path", "transformers_version")
"""Entries of config.json that differ between copies of a model."""


def model_digest(path: str) -> str:
    """SHA-256 of a folder's weights and configuration; empty for a built-in and a Hub id."""
    folder = Path(path).expanduser()
    if path in MODELS or not folder.is_dir():
        return ""
    files = sorted(folder.glob("*.safetensors"))
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the interpreter lock
        digests = list(pool.map(_file_digest, files))
    whole = hashlib.sha256(_configuration(folder / "config.json"))
    for file, digest in zip(files, digests, strict=True):
        whole.update(f"{file.name} {digest}\n".encode())
    return whole.hexdigest()


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _configuration(file: Path) -> bytes:
    content = json.loads(file.read_text(encoding="utf-8"))
    return json.dumps({name: content[name] for name in content if name not in _SAYS_NOTHING}, sort_keys=True).encode()
