"""Makes torch and vLLM believe in one A40. Import it before vllm."""

from types import SimpleNamespace
from typing import Any

import torch
import vllm.third_party.pynvml as nvml

NAME = "NVIDIA A40"
CAPABILITY = (8, 6)
MEMORY_BYTES = int(44.4 * 2**30)

PROPERTIES = SimpleNamespace(
    name=NAME,
    uuid="GPU-0",
    major=CAPABILITY[0],
    minor=CAPABILITY[1],
    total_memory=MEMORY_BYTES,
    multi_processor_count=84,
    warp_size=32,
    max_threads_per_multi_processor=1536,
    regs_per_multiprocessor=65536,
    shared_memory_per_block_optin=99 * 1024,
    L2_cache_size=6 * 2**20,
)

_NVML = {
    "nvmlInit": None,
    "nvmlShutdown": None,
    "nvmlDeviceGetCount": 1,
    "nvmlDeviceGetHandleByIndex": 0,
    "nvmlDeviceGetName": NAME,
    "nvmlDeviceGetUUID": PROPERTIES.uuid,
    "nvmlDeviceGetNumaNodeId": 0,
    "nvmlDeviceGetCudaComputeCapability": CAPABILITY,
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=MEMORY_BYTES, free=MEMORY_BYTES, used=0),
}
_TORCH = {
    "is_available": True,
    "device_count": 1,
    "current_device": 0,
    "is_bf16_supported": True,
    "get_device_name": NAME,
    "get_device_capability": CAPABILITY,
    "get_device_properties": PROPERTIES,
}


def _always(answer: object) -> Any:
    return lambda *_, **__: answer


for name, answer in _NVML.items():
    setattr(nvml, name, _always(answer))
for name, answer in _TORCH.items():
    setattr(torch.cuda, name, _always(answer))
torch.accelerator.device_count = _always(1)
