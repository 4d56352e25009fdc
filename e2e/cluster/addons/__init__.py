"""Parts that a scenario may want besides Kubernetes, each the real thing, run inside the bed's namespaces."""

from .base import Addon, AddonContext
from .contour import Contour
from .keda import Keda
from .kserve import KServe
from .metrics_server import MetricsServer
from .prometheus import Prometheus

_ALL: tuple[Addon, ...] = (Contour(), Keda(), KServe(), MetricsServer(), Prometheus())
ADDONS = {addon.name: addon for addon in _ALL}

__all__ = ["ADDONS", "Addon", "AddonContext"]
