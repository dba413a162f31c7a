"""The start model of a run as others know it: its name on the Hub and its licence."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCard, hf_hub_download

from openrs_ray.common import hub
from openrs_ray.models.bundled import SMOLLM2, TOYS, looks_like_hub_id
from openrs_ray.models.weight_files import model_folder

_SMOLLM2_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_IN_HUB_CACHE = re.compile(r"models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/[^/]+/?$")
_LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*")
_KNOWN = {SMOLLM2: "apache-2.0", **dict.fromkeys(TOYS, "apache-2.0")}


@dataclass(frozen=True, slots=True)
class Base:
    """Example: Base("Qwen/Qwen2.5-1.5B-Instruct", hub_id="Qwen/Qwen2.5-1.5B-Instruct", path="/models/qwen")"""

    name: str
    """For people; of a folder its own name only, which says nothing about the machine."""
    hub_id: str | None
    path: str
    """As the recipe has it."""

    @classmethod
    def of(cls, path: str) -> "Base":
        if path in TOYS:
            return cls(f"{path} (a model that openrs_ray makes itself)", None, path)
        if path == SMOLLM2:
            return cls(_SMOLLM2_ON_HUB, _SMOLLM2_ON_HUB, path)
        folder = Path(path).expanduser()
        if cached := _IN_HUB_CACHE.search(str(folder)):
            hub_id = f"{cached['owner']}/{cached['name']}"
            return cls(hub_id, hub_id, path)
        if not folder.is_dir() and looks_like_hub_id(path):
            return cls(path, path, path)
        return cls(folder.name, None, path)

    @property
    def shared(self) -> str:
        """As an adapter's files name it: they may say nothing about the machine, and a Hub id loads anywhere."""
        return self.hub_id or (self.path if self.path in _KNOWN else self.name)

    def licence(self) -> str | None:
        """The Hub's short name of it ("apache-2.0"), by the model card; None where no card says it."""
        if self.path in _KNOWN:
            return _KNOWN[self.path]
        content = self._card()
        if content is None:
            return None
        with suppress(ValueError, yaml.YAMLError):  # a card without readable metadata says nothing
            licence = getattr(ModelCard(content, ignore_metadata_errors=True).data, "license", None)
            return licence if isinstance(licence, str) and licence else None
        return None

    def licence_files(self) -> list[Path]:
        """The texts that lie beside the model."""
        folder = self._folder()
        if folder is None:
            return []
        return sorted({file for name in _LICENCE_FILES for file in folder.glob(name) if file.is_file()})

    def _folder(self) -> Path | None:
        """On this machine, as far as it is there."""
        folder = Path(self.path).expanduser()
        if self.path not in _KNOWN and folder.is_dir():
            return folder
        return model_folder(self.hub_id) if self.hub_id else None

    def _card(self) -> str | None:
        folder = self._folder()
        if folder is not None and (folder / "README.md").is_file():
            return (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        if self.hub_id is None or hub.problem() is not None:
            return None
        with suppress(OSError):  # a repository without a card, or one that only its owner may read
            return Path(hf_hub_download(self.hub_id, "README.md")).read_text(encoding="utf-8", errors="replace")
        return None


def shared_name(path: str) -> str:
    """A path of this machine as its last part; any other text as it is."""
    return Path(path).name if re.fullmatch(r"(/|~|\.\.?/)[^\n]*", path) and len(path) > 1 else path
