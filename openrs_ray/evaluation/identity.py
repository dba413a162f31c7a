"""Identity of a model that was evaluated. Light to import."""

import hashlib
from pathlib import Path

_EDGE_BYTES = 1 << 20


def model_identity(path: str) -> str:
    """Digest of the files of a model's folder; of any other model its name."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.suffix in (".safetensors", ".bin", ".json")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as content:  # both ends: weights of several GB are not read for this
            digest.update(content.read(_EDGE_BYTES))
            content.seek(max(0, size - _EDGE_BYTES))
            digest.update(content.read())
    return digest.hexdigest()
