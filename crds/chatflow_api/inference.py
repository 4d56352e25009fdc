"""What the intent server is asked and what it answers, in KServe's two protocols. Shared by the server and by gateways.

V1, `POST /v1/models/NAME:predict`:
    {"instances": ["text", {"text": "text"}], "parameters": {"embedding": true}}
    {"predictions": [{"intent": "refund", "confidence": 0.97, "out_of_scope": 0.01, "in_scope": true,
                      "alternatives": [{"intent": "refund", "confidence": 0.97}], "embedding": [0.1, ...]}],
     "model_version": "1f2e..."}

Open Inference Protocol (V2), `POST /v2/models/NAME/infer`: one input, TEXT; every output below, EMBEDDING only where
the request's `outputs` name it. Vectors are (texts, dimensions), alternatives (texts, ALTERNATIVES), padded with ""
and 0.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL_FORMAT = "chatflow-intent"
"""As InferenceServices and ServingRuntimes name it."""
ALTERNATIVES = 5
"""Intents that a prediction lists, best first; fewer where the model knows fewer."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, its V2 datatype, and its shape with -1 for any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]


TEXT = Tensor("text", "BYTES", (-1,))
INTENT = Tensor("intent", "BYTES", (-1,))
CONFIDENCE = Tensor("confidence", "FP32", (-1,))
"""Calibrated probability of the intent, 0 to 1."""
OUT_OF_SCOPE = Tensor("out_of_scope", "FP32", (-1,))
"""Probability that the text is about none of the intents, 0 to 1."""
ALTERNATIVE_INTENTS = Tensor("alternative_intents", "BYTES", (-1, -1))
ALTERNATIVE_CONFIDENCES = Tensor("alternative_confidences", "FP32", (-1, -1))
EMBEDDING = Tensor("embedding", "FP32", (-1, -1))
"""The encoder's vector of the text, of length 1."""
OUTPUTS = (INTENT, CONFIDENCE, OUT_OF_SCOPE, ALTERNATIVE_INTENTS, ALTERNATIVE_CONFIDENCES)
"""What is given unless other outputs are asked for."""
