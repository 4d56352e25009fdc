"""A flow so small that it trains in a moment, for tests of the commands around it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

MANIFEST = """\
apiVersion: chatflow.dev/v1alpha1
kind: ChatFlow
metadata: {name: tiny}
spec:
  locale: en
  dialogue:
    greeting: Welcome to the tiny shop.
  knowledge:
    sources: [{configMap: {name: faq}}]
    minScore: 0.2
  models:
    intent:
      encoder: none
      confidence: 0.5
      examples:
        refund: [money back, refund please, return my payment, i want my money back, refund my order]
        delivery: [where is my parcel, delivery time, when does it arrive, track my parcel, shipping time]
        out_of_scope: [weather tomorrow, write a poem, who won the match, stock prices, translate a word]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: faq}
data:
  faq.yaml: |
    - id: refund-time
      intent: refund
      question: How long does a refund take?
      similar: [when do i get my money back, how many days for a refund]
      answer: A refund takes three working days.
      url: https://shop.example.com/refund
    - id: delivery-time
      intent: delivery
      question: How long does delivery take?
      similar: [when does my parcel arrive, how many days for shipping]
      answer: Delivery takes two days.
"""
QUESTIONS = [
    {"text": "how long until my refund is here", "intent": "refund", "answers": ["refund-time"]},
    {"text": "when will the parcel arrive", "intent": "delivery", "answers": ["delivery-time"]},
    {"text": "is my parcel on its way", "intent": "delivery", "answers": []},
    {"text": "what will the weather be", "intent": "out_of_scope", "answers": []},
]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The manifest's file; questions.jsonl stands beside it."""
    file = tmp_path / "flow.yaml"
    file.write_text(MANIFEST, encoding="utf-8")
    lines = "\n".join(json.dumps(question) for question in QUESTIONS)
    (tmp_path / "questions.jsonl").write_text(lines + "\n", encoding="utf-8")
    return file
