"""Runs the SDK's REST and gRPC servers around one model, with the fast path in front.

The SDK's own `ModelServer.start` binds every address and takes its application by name; its parts are used one by one.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from concurrent import futures
from typing import Any

import kserve.model_server
import uvloop
from grpc import StatusCode, aio
from kserve.errors import InvalidInput
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import JSONResponse

from chatflow_models.intent.batching import BatchFailed
from chatflow_models.serving.artefacts import follow, load_model
from chatflow_models.serving.fast_path import MAX_BODY_BYTES, FastPath
from chatflow_models.serving.model import KServeModel
from chatflow_models.serving.service import IntentService, Overloaded
from chatflow_models.serving.settings import Settings

log = logging.getLogger("chatflow.serving")

GC_ALLOCATIONS = 10_000
"""Objects more than were freed, between two passes of the collector over the young ones."""


def run(settings: Settings) -> None:
    """Load, warm up, serve until SIGTERM, drain. ArtefactError or EncoderError when the model cannot be used."""
    began_s = time.monotonic()
    model = load_model(settings.model_dir, settings.wait_s)
    service = IntentService(settings.model_name, model, settings.load, REGISTRY, settings.threads)
    service.warm()
    log.info("model %s (%s) is warm after %.1f s", settings.model_name, model.version, time.monotonic() - began_s)
    # What has been loaded stays: the collector need not look at it again, and requests hardly make any cycles.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 50)
    uvloop.run(_serve(settings, service))


class _FixedModels(ModelRepositoryExtension):  # type: ignore[misc]  # The SDK is untyped.
    """The one model stays: whoever reaches the port could take it away from everyone."""

    async def load(self, model_name: str) -> None:
        """InvalidInput, always."""
        raise InvalidInput(f"{model_name!r} is not loaded by request; put an artefact into the server's folder")

    async def unload(self, model_name: str) -> None:
        """InvalidInput, always."""
        raise InvalidInput(f"{model_name!r} is not unloaded by request; stop the server")


class _Interceptor(ExceptionToStatusInterceptor):  # type: ignore[misc]  # As above.
    """The SDK's, which knows no refusals."""

    async def handle_exception(self, ex: Exception, request: Any, context: aio.ServicerContext, method: str) -> None:
        """Give an exception its status."""
        if isinstance(ex, Overloaded):
            await context.abort(StatusCode.RESOURCE_EXHAUSTED, str(ex))
        if isinstance(ex, BatchFailed):
            await context.abort(StatusCode.INTERNAL, f"the model failed: {ex}")
        await super().handle_exception(ex, request, context, method)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    """The SDK's own routes refuse as the fast ones do."""
    assert isinstance(error, Overloaded), "registered for it"  # noqa: S101
    return JSONResponse({"error": str(error)}, 429, {"Retry-After": str(error.retry_after_s)})


async def _serve(settings: Settings, service: IntentService) -> None:
    models = ModelRepository()
    models.update(KServeModel(service))
    plane, extension = DataPlane(models), _FixedModels(models)
    kserve.model_server.app.add_exception_handler(Overloaded, _refused)
    app = FastPath(kserve.model_server.app, service)
    # The application is an object here, where the SDK's signature says a name; uvicorn takes either.
    rest = RESTServer(app, plane, extension, settings.http_port, grace_period=settings.grace_s)
    rest.config.host = settings.host
    grpc = await _grpc(settings, plane, extension)
    # uvicorn returns on SIGTERM, once the requests under way are answered, and then sends the signal once more.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    following = asyncio.create_task(follow(settings.model_dir, service))
    try:
        await rest.start()
    finally:
        following.cancel()
        if grpc is not None:
            await grpc.stop(grace=settings.grace_s)
        await service.idle()
        service.close()


async def _grpc(settings: Settings, plane: DataPlane, extension: ModelRepositoryExtension) -> aio.Server | None:
    if settings.grpc_port == 0:
        return None
    server = aio.server(
        futures.ThreadPoolExecutor(max_workers=1),
        interceptors=(_Interceptor(),),
        options=[("grpc.max_receive_message_length", MAX_BODY_BYTES), ("grpc.max_send_message_length", -1)],
    )
    servicer = InferenceServicer(plane, extension)
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    await server.start()
    return server
