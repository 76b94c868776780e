"""Model folders in Hugging Face's format: tiny random models with templates of several families.

The templates are written from the documented formats of the families. They contain what makes real
templates hard: trimmed text, dropped thinking, roles that must alternate, call ids of nine
characters, a date, and a system message that moves elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

HERMES = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + message.content }}
{%- for call in message.tool_calls %}
{%- if not loop.first or message.content %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}
{{- '<|im_start|>user' }}
{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# Like Hermes, but thinking before the last question is dropped.
QWEN3 = HERMES.replace(
    "{%- for message in messages %}",
    """\
{%- set ns = namespace(last=0) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}""",
    1,
).replace(
    "{{- '<|im_start|>assistant\\n' + message.content }}",
    """\
{%- generation %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last and message.reasoning_content %}
{{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}
{%- endif %}
{{- message.content.lstrip('\\n') }}
{%- endgeneration %}""",
)

# Calls are written as tags with unescaped text.
_HERMES_CALL = """\
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
"""
_TAGGED_CALL = """\
{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}
{%- for name, value in call.function.arguments | items %}
{{- '<parameter=' + name + '>\\n' }}
{{- value if value is string else (value | tojson if value is mapping else value | string) }}
{{- '\\n</parameter>\\n' }}
{%- endfor %}
{{- '</function>\\n</tool_call>' }}
"""
QWEN_CODER = HERMES.replace(_HERMES_CALL, _TAGGED_CALL)

LLAMA3 = """\
{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
{%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\\n\\n' + system_message + '<|eot_id|>' }}
{%- if tools is not none %}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\nAnswer with {"name": .., "parameters": ..}\\n' }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
{{- (messages[0]['content'] | trim) + '<|eot_id|>' }}{%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}
{{- raise_exception('This model takes one call at a time') }}
{%- endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{{- '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}
{%- elif message.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- (message['content'] | trim) + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# The system message moves into the last question; calls are a list with ids.
MISTRAL = """\
{%- if messages[0].role == 'system' %}
{%- set system_message = messages[0].content %}{%- set messages = messages[1:] %}
{%- endif %}
{%- set last = (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if tools is not none and message == last %}
{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
{%- endif %}
{{- '[INST] ' }}
{%- if system_message is defined and message == last %}{{- system_message + '\\n\\n' }}{%- endif %}
{{- message.content + '[/INST]' }}
{%- elif message.tool_calls %}
{{- '[TOOL_CALLS] [' }}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{- raise_exception('Ids have nine characters') }}{%- endif %}
{%- set out = call.function | tojson %}
{{- out[:-1] + ', "id": "' + call.id + '"}' + (', ' if not loop.last else ']' + eos_token) }}
{%- endfor %}
{%- elif message.role == 'assistant' %}{{- ' ' + message.content + eos_token }}
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS] {"content": ' + (message.content | tojson) + ', "call_id": "' }}
{{- message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}
{%- endfor %}
"""

MISTRAL_ARGS = """\
{{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
{%- if tools %}{{- '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- elif message.role == 'user' %}{{- '[INST]' + message.content + '[/INST]' }}
{%- elif message.role == 'tool' %}
{{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
{%- else %}
{{- message.content }}
{%- for call in message.tool_calls %}
{{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' + (call.function.arguments | tojson) }}
{%- endfor %}
{{- eos_token }}
{%- endif %}
{%- endfor %}
"""

# No system message, no tools, and roles must alternate.
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}
{%- for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate') }}
{%- endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + (message['content'] | trim) + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}
"""


@dataclass(frozen=True)
class Kind:
    """A family: its template, its control tokens, and the token that ends a turn."""

    name: str
    model: str
    template: str
    special: tuple[str, ...]
    end: str
    settings: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)


_IM = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
_BRACKETS = (
    "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[ARGS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
)  # fmt: skip
_HEADERS = (
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>",
)  # fmt: skip

KINDS = {
    kind.name: kind
    for kind in (
        Kind("qwen2", "Qwen2", HERMES, _IM, "<|im_end|>"),
        Kind("smollm", "Llama", HERMES, _IM[:2], "<|im_end|>"),  # its call marks are plain text
        Kind("qwen3", "Qwen3", QWEN3, (*_IM, "<think>", "</think>"), "<|im_end|>",
             {"head_dim": 16},
             {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}),
        Kind("qwen_coder", "Qwen2", QWEN_CODER, _IM, "<|im_end|>"),
        Kind("llama3", "Llama", LLAMA3, _HEADERS, "<|eot_id|>"),
        Kind("mistral", "Mistral", MISTRAL, _BRACKETS[:7], "</s>"),
        Kind("mistral_args", "Mistral", MISTRAL_ARGS, _BRACKETS, "</s>"),
        Kind("gemma2", "Gemma2", GEMMA, ("<start_of_turn>", "<end_of_turn>"), "</s>",
             {"head_dim": 16, "tie_word_embeddings": False}),
    )
}  # fmt: skip


def make_folder(name: str, folder: Path, *, context: int = 8192, seed: int = 0) -> Path:
    """Make a model folder: random weights, a byte tokenizer with a few merges, and the template."""
    kind = KINDS[name]
    special = ["<pad>", "<s>", "</s>", *kind.special]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ('"', ":"),
              ('":', "Ġ"), ('":Ġ', '"'), ('"', "}"), (",", "Ġ"), ("{", '"')]  # fmt: skip
    opens = next((mark for mark in ("<tool_call>", "[TOOL_CALLS]") if mark in special), "")
    if not opens and name != "llama3":  # plain text, but one token
        opens = "<tool_call>"
        merges += [(opens[:n], opens[n]) for n in range(1, len(opens))]
    value_end = "Ċ</parameter>" if name == "qwen_coder" else ""
    merges += [(value_end[:n], value_end[n]) for n in range(1, len(value_end))]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": kind.end,
        "pad_token": "<pad>",
    }
    if name.startswith("mistral"):  # older folders keep the template here
        settings["chat_template"] = kind.template
    else:
        (folder / "chat_template.jinja").write_text(kind.template)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind.model}Config")(
        vocab_size=-(-len(vocab) // 64) * 64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=vocab[kind.end],
        **kind.settings,
    )
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32)
    likely = [kind.end, opens or "<|python_tag|>", "{", '"', '"}', "}", '":Ġ"']
    likely += ["<think>", "</think>"] if name == "qwen3" else []
    likely += [value_end] if value_end else []
    _prefer(model, [vocab[token] for token in likely])
    model.save_pretrained(folder)
    end = vocab["<end_of_turn>"] if name == "gemma2" else vocab[kind.end]
    generation = {"eos_token_id": [2, end], **kind.generation}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


@torch.no_grad()
def _prefer(model: Any, tokens: list[int]) -> None:
    """Make some tokens more likely everywhere, so that random answers call tools and end.

    One channel of the residual stream is made the same after every token, and the head reads it.
    """
    model.get_input_embeddings().weight[:, 0] = 0.5
    seen: Any = model.model(torch.arange(3, 35)[None]).last_hidden_state[..., 0].mean()
    model.lm_head.weight[:, 0] = 0.0
    model.lm_head.weight[tokens, 0] = 4.0 / seen
