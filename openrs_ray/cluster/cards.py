"""GPUs: speeds and compute capability, as their maker states them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Card:
    """A kind of GPU, as its maker states it."""

    name: str
    capability: int
    """Compute capability, 89 for 8.9."""
    gb_per_s: float
    tflops: float
    """TFLOP/s of dense bfloat16 products summed in float32."""
    pcie_gb_per_s: float = 32
    """GB/s to the host's memory, each way; by default 16 lanes of PCIe 4."""


CARDS = (
    Card("H200", 90, 4800, 989, 64),
    Card("H100 PCIe", 90, 2039, 756, 64),
    Card("H100 NVL", 90, 3938, 835, 64),
    Card("H100", 90, 3350, 989, 64),
    Card("GH200", 90, 4000, 989, 64),
    Card("B200", 100, 8000, 2250, 64),
    Card("A100-SXM4-80GB", 80, 2039, 312),
    Card("A100 80GB", 80, 1935, 312),
    Card("A100", 80, 1555, 312),
    Card("L40S", 89, 864, 362),
    Card("L40", 89, 864, 181),
    Card("A40", 86, 696, 150),
    Card("A30", 80, 933, 165),
    Card("A10G", 86, 600, 70),
    Card("A10", 86, 600, 125),
    Card("L4", 89, 300, 121),
    Card("RTX 6000 Ada", 89, 960, 364),
    Card("RTX A6000", 86, 768, 155),
    Card("RTX 5090", 120, 1792, 210, 64),
    Card("RTX 4090", 89, 1008, 165),
    Card("RTX 3090", 86, 936, 71),
    Card("RTX 4070", 89, 504, 58),
    Card("RTX 3060", 86, 360, 25),
)
"""By name; names that contain another come before it."""


def card(name: str) -> Card | None:
    """A GPU by its name, from nvidia-smi or as a person writes it; None if unknown."""
    words = _words(name)
    return next((known for known in CARDS if _words(known.name) <= words), None)


def _words(name: str) -> set[str]:
    return {*name.lower().replace("-", " ").split()}
