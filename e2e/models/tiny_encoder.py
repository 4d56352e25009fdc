"""Writes a sentence encoder of two layers with random weights, as MacBERT and its like are, and its tokenizer.

Runs in vLLM's environment, which has torch and transformers: `python tiny_encoder.py FOLDER`.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

LINES = (
    "Good morning, your parcel left our warehouse yesterday and arrives on Friday.",
    "You may send the shoes back within thirty days; we pay you back in full.",
    "早上好，您的包裹昨天已经发出，预计周五送达。",
    "三十天内可以退货，退款会原路返回到您的账户。",
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer() -> PreTrainedTokenizerFast:
    """BERT's own kind: word pieces, and each Chinese character by itself."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL))
    places = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=places)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **names)


def main(folder: str) -> None:
    """Write it."""
    words = tokenizer()
    words.save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        pad_token_id=words.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
