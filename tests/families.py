"""Small random models of real families, with a real tokenizer and their real chat templates."""

from __future__ import annotations

from pathlib import Path

FAMILIES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", "trl_llama3_training"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", "trl_qwen3"),
    "mistral": ("MistralConfig", "MistralForCausalLM", "mistral-instruct"),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", "gemma-it"),
}
MARKS = {
    "llama": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "qwen3": (),
    "mistral": ("[INST]", "[/INST]"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
}
STOPS = {"llama": "<|eot_id|>", "gemma": "<end_of_turn>"}


def make_family(family: str, data: Path, folder: Path) -> Path:
    """Save a random model of a family, its embeddings grown by the family's marker tokens."""
    import torch
    import transformers

    config_name, model_name, template = FAMILIES[family]
    tokenizer = transformers.AutoTokenizer.from_pretrained(data / "tokenizers" / "minimind")
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS[family])})
    if family in STOPS:
        tokenizer.eos_token = STOPS[family]
    tokenizer.chat_template = (data / "chat_templates" / f"{template}.jinja").read_text()
    sizes = {
        "vocab_size": 6400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 2048, "tie_word_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**sizes))
    model.resize_token_embeddings(len(tokenizer))
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.bos_token_id = tokenizer.bos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
