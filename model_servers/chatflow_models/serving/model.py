"""The model as the KServe SDK sees it: for gRPC, binary tensors, CloudEvents, metadata and readiness."""

from __future__ import annotations

from typing import Any

from chatflow_api.inference import EMBEDDING, OUTPUTS, TEXT, Tensor
from kserve import InferInput, InferOutput, InferRequest, InferResponse, Model
from kserve.errors import InvalidInput
from kserve.utils.utils import generate_uuid

from chatflow_models.intent import Prediction
from chatflow_models.serving import wire
from chatflow_models.serving.service import IntentService


class KServeModel(Model):  # type: ignore[misc]  # The SDK is untyped.
    """An IntentService as one of the SDK's models. Ready once it is made: its service is warm."""

    def __init__(self, service: IntentService) -> None:
        super().__init__(service.name)
        self._service = service
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [_described(TEXT)]

    def get_output_types(self) -> list[dict[str, Any]]:
        """For the model's metadata."""
        return [_described(tensor) for tensor in (*OUTPUTS, EMBEDDING)]

    async def predict(
        self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> Any:
        """Predictions for a request that the SDK has decoded. InvalidInput says what is wrong with it."""
        del headers, response_headers
        if isinstance(payload, InferRequest):
            return await self._infer(payload)
        instances = payload.get("instances") if isinstance(payload, dict) else None
        if not isinstance(instances, list):
            raise InvalidInput('send {"instances": ["text", ...]}')
        texts = _checked([one.get("text") if isinstance(one, dict) else one for one in instances])
        rows = await self._service.predict(texts, "v1")
        return {"predictions": wire.rows_v1(rows, has_embedding=False), "model_version": self._service.version}

    async def _infer(self, request: InferRequest) -> InferResponse:
        given: list[InferInput] = request.inputs
        if len(given) != 1 or given[0].name != TEXT.name or given[0].datatype != TEXT.datatype:
            raise InvalidInput(f"send one input, {TEXT.name!r}, of datatype {TEXT.datatype}")
        texts = _checked([_decoded(one) for one in given[0].as_numpy().reshape(-1).tolist()])
        try:
            wanted = [wire.named(output.name) for output in request.request_outputs or ()] or list(OUTPUTS)
        except wire.RequestInvalid as error:
            raise InvalidInput(str(error)) from error
        predictions = await self._service.predict(texts, "v2")
        return InferResponse(
            response_id=request.id or generate_uuid(),
            model_name=self.name,
            model_version=self._service.version,
            infer_outputs=[_output(tensor, predictions) for tensor in wanted],
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )


def _output(tensor: Tensor, predictions: list[Prediction]) -> InferOutput:
    shape, values = wire.values_of(tensor, predictions)
    data = values if isinstance(values, list) else values.tolist()
    return InferOutput(tensor.name, shape, tensor.datatype, data)


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _decoded(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"a text is no UTF-8 ({error})") from error


def _checked(texts: list[Any]) -> list[str]:
    try:
        return wire.checked(texts)
    except wire.RequestInvalid as error:
        raise InvalidInput(str(error)) from error
