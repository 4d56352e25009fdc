"""`python -m chatflow_operator`: runs until SIGTERM; settings from the environment."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, cast

import kopf
import prometheus_client

from chatflow_operator.handlers import Operator
from chatflow_operator.logs import configure
from chatflow_operator.settings import Settings, SettingsInvalid


def main() -> int:
    """Run the operator; 2 when its settings cannot be used."""
    try:
        settings = Settings.read(os.environ)
    except SettingsInvalid as error:
        sys.stderr.write(f"{error}\n")
        return 2
    configure(settings.log_format)
    metrics = prometheus_client.CollectorRegistry()
    if settings.metrics_port:
        prometheus_client.start_http_server(settings.metrics_port, registry=metrics)
    registry = kopf.OperatorRegistry()
    # kopf's own guess asks for the user's name, which a container need not have.
    identity = socket.gethostname()
    operator = Operator(settings, metrics, identity)
    operator.register(registry)
    kopf.run(
        registry=registry,
        stop_flag=operator.ends,
        identity=cast("Any", identity),
        peering_name=settings.peering,
        standalone=settings.peering is None,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz" if settings.health_port else None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
