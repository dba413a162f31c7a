"""Decodes recorded rollouts as the run did, with the tokenizer of a kept policy."""

from dataclasses import dataclass

from openrs_ray.audit.run import AuditedRun
from openrs_ray.data.completions import Decoder, RolloutDecoder, Texts, opening_after
from openrs_ray.errors import UserError
from openrs_ray.export.prompting import Prompting
from openrs_ray.models.pretrained import read_tokenizer
from openrs_ray.records import Group


@dataclass(frozen=True)
class Reader:
    """Example: Reader.of(run).texts(group, "<|user|>1+1<|assistant|>")"""

    decoder: Decoder
    end_ids: tuple[int, ...]

    @classmethod
    def of(cls, run: AuditedRun) -> "Reader | None":
        """With the tokenizer of a kept policy, whichever has one."""
        for checkpoint in run.policies.values():
            prompting = Prompting.read(checkpoint.policy)
            if prompting is not None:
                try:
                    return cls(Decoder.of(read_tokenizer(str(checkpoint.policy))), prompting.end_ids)
                except UserError:
                    continue
        return None

    def texts(self, group: Group, prompt: str | None) -> list[Texts]:
        return RolloutDecoder(self.decoder, self.end_ids, opening_after(prompt or ""))(group.rollouts)
