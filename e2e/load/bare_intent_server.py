"""The reference of `intent_server`: a bare Starlette app around the same model with the same batching, no more.

Takes the server's own command line.
"""

from __future__ import annotations

import os
import sys

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import uvicorn  # noqa: E402
from chatflow_models.intent import IntentModel  # noqa: E402
from chatflow_models.serving.service import IntentService, Overloaded  # noqa: E402
from chatflow_models.serving.settings import Settings  # noqa: E402
from prometheus_client import CollectorRegistry  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Route  # noqa: E402


def main() -> None:
    """Serve until told to stop."""
    settings = Settings.parse(sys.argv[1:])
    model = IntentModel.load(settings.model_dir)
    service = IntentService("intent", model, settings.load, CollectorRegistry(), settings.threads)
    service.warm()

    async def predict(request: Request) -> JSONResponse:
        predictions = await service.predict((await request.json())["instances"], "v1")
        return JSONResponse(
            {"predictions": [{"intent": one.intent, "confidence": one.confidence} for one in predictions]}
        )

    async def refused(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 429)

    app = Starlette(
        exception_handlers={Overloaded: refused}, routes=[Route("/v1/models/intent:predict", predict, methods=["POST"])]
    )
    uvicorn.run(app, host=settings.host, port=settings.http_port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
