"""Writes a language model of two layers with random weights, its tokenizer and a chat template into a folder.

Runs in vLLM's environment, which has torch and transformers: `python tiny_model.py FOLDER`.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

LINES = (
    "Good morning, your parcel left our warehouse yesterday and arrives on Friday.",
    "You may send the shoes back within thirty days; we pay you back in full.",
    "早上好，您的包裹昨天已经发出，预计周五送达。",
    "三十天内可以退货，退款会原路返回到您的账户。",
)
TEMPLATE = (
    "{% for one in messages %}<|im_start|>{{ one['role'] }}\n{{ one['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: every text can be written with it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, special_tokens=[END, START, STOP])
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=STOP, pad_token=END, bos_token=None, model_max_length=8192
    )
    wrapped.chat_template = TEMPLATE
    return wrapped


def main(folder: str) -> None:
    """Write it."""
    words = tokenizer()
    words.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=(len(words) + 63) // 64 * 64,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(7)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)


if __name__ == "__main__":
    main(sys.argv[1])
