"""A real two-layer Llama under its language-model head, as a model folder."""

from pathlib import Path
from typing import Any


def save_causal(folder: Path, tokenizer: Any, seed: int = 0) -> Path:
    """Two layers of 32 dimensions with random weights, large enough that they see the words before a word."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
