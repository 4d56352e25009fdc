"""The slow routes, behind the fast path: FastAPI serves the pages, the widget, /v1/config, /v1/models and the document.

Its own page at /docs would load its script from a content delivery network, which a cluster may not reach.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.web import assets, wire
from chatflow_runtime.web.completion_types import Model, ModelList
from chatflow_runtime.web.dispatch import REQUEST_ID
from chatflow_runtime.web.docs import openapi
from chatflow_runtime.web.exchange import failure_headers
from chatflow_runtime.web.handoffs import Desk, HandoffRoutes
from chatflow_runtime.web.problems import PROBLEM_STYLE, MethodRefused, RouteUnknown
from chatflow_runtime.web.services import Services

JSON = "application/json"


class Pages(FastAPI):
    """FastAPI with the document of `docs.openapi`, since the chat routes never pass through it."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made at the first request."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.document()
        return self.openapi_schema


def create_pages(services: Services, desk: Desk | None = None) -> Pages:
    """The application behind the fast path. The routes of agents are there where a flow has a desk."""
    app = Pages(title=openapi.TITLE, version=openapi.VERSION, docs_url=None, redoc_url=None, redirect_slashes=False)
    files = {"/": assets.page("page.html"), "/docs": assets.page("docs.html"), "/widget.js": assets.widget()}
    config = wire.encode(_widget_config(services))
    models = wire.encode(ModelList((Model(services.config.flow.name, services.clock.now_ms() // 1000),)))

    async def send_file(request: Request) -> Response:
        return files[request.scope["path"]].response(request)

    async def send_config() -> Response:
        return Response(config, media_type=JSON)

    async def send_models() -> Response:
        return Response(models, media_type=JSON)

    endpoints: dict[str, Callable[..., Awaitable[Response]]] = {"/v1/config": send_config, "/v1/models": send_models}
    for path, endpoint in (endpoints | dict.fromkeys(files, send_file)).items():
        app.add_api_route(path, endpoint, methods=["GET", "HEAD"])

    if desk is not None:
        HandoffRoutes(services, desk).add_to(app)

    async def as_problem(request: Request, error: Exception) -> Response:
        problem = services.problems.of(_translated(request, error), request.scope[REQUEST_ID])
        media_type = PROBLEM_STYLE.content_type.decode()
        response = Response(PROBLEM_STYLE.body(problem), problem.status, media_type=media_type)
        response.headers.update((error.headers or {}) if isinstance(error, HTTPException) else {})
        for name, value in failure_headers(problem):
            response.headers[name.decode()] = value.decode()
        return response

    app.add_exception_handler(HTTPException, as_problem)
    app.add_exception_handler(ChatFlowError, as_problem)
    app.add_exception_handler(Exception, as_problem)
    return app


def _widget_config(services: Services) -> wire.WidgetConfig:
    config = services.config
    return wire.WidgetConfig(
        title=config.dialogue.title,
        greeting=texts_for(config).greeting,
        locale=config.locale.value,
        rating_scale=config.dialogue.rating_scale,
        max_text_length=config.gateway.max_text_length,
        has_sessions=config.gateway.auth.required and config.gateway.auth.anonymous,
    )


def _translated(request: Request, error: Exception) -> ChatFlowError:
    path = request.url.path
    if isinstance(error, ChatFlowError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodRefused(f"{path} does not take {request.method}; /docs lists the routes and their methods")
    if isinstance(error, HTTPException):
        return RouteUnknown(f"there is no route {path[:200]!r}; /docs lists the routes")
    return ChatFlowError()
