"""Chat templates with tools, in the lines by which public ones do it, and a byte-level tokenizer with merges for them."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_SHOW_TOOLS = "{% for t in tools %}\n{{ t | tojson }}{% endfor %}"

QWEN25 = (
    "<|im_start|>system\nYou are Qwen.{% if tools %}\n\n# Tools\n<tools>"
    + _SHOW_TOOLS
    + "\n</tools>\nReturn <tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>{% endif %}<|im_end|>\n'
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = QWEN25.replace("You are Qwen.", "").replace(
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>",
    "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>",
)
"""Earlier turns lose their reasoning."""
LLAMA31 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython{% if tools %}\nRespond in the format "
    '{"name": function name, "parameters": dictionary of argument name and its value}.'
    + _SHOW_TOOLS
    + "{% endif %}<|eot_id|>"
    "{% for m in messages %}{% if m.role == 'tool' or m.role == 'ipython' %}"
    "<|start_header_id|>ipython<|end_header_id|>\n\n{{ m.content | tojson }}<|eot_id|>"
    "{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% elif m.role == 'tool' %}"
    "<|tool_output|>{{ m.content }}{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end_of_sentence|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
"""Knows results of tools, but shows no tools."""
SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\nYou are SmolLM.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Takes any role, and has seen no tools."""
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GLM = (
    "[gMASK]<sop>{% if tools %}<|system|>\n# Tools"
    + _SHOW_TOOLS
    + "\n<tool_call>{name}<arg_key>{key}</arg_key>{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}{% if messages[loop.index0 - 1].role != 'tool' %}<|observation|>{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>{% else %}<|{{ m.role }}|>\n"
    "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""The next message's role ends the model's turn."""

_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<|eom_id|>"),
    *("<|User|>", "<|Assistant|>", "<|end_of_sentence|>", "<|tool_output|>", "<bos>", "<start_of_turn>"),
    *("<end_of_turn>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
)  # fmt: skip
_TEXT = ["the answer is 42\n\nanswers to the question: tool_response, international arguments " * 20]


def tokenizer_with(template: str, end: str) -> PreTrainedTokenizerFast:
    """Merges as a real one has them: the same text has several spellings in tokens."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(_TEXT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in _SPECIAL])
    bos = "<bos>" if "start_of_turn" in template else "<|begin_of_text|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token=bos, eos_token=end, pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer
