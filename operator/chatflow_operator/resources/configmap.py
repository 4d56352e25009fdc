"""ConfigMaps: what the runtime and the build Job read, and the state server's scripts."""

from __future__ import annotations

import json
from importlib import resources as files

from chatflow_operator.objects import CONFIG_MAP, Manifest
from chatflow_operator.resources import warmup
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.served_models import language_models

RUNTIME_KEY, FLOW_KEY = "runtime.json", "flow.json"
REDIS_FILES = ("redis.conf", "redis.sh", "sentinel.sh", "handover.sh")


def configuration(frame: Frame) -> Manifest:
    """runtime.json for gateways and worker; flow.json, what the build Job needs; what warms models up."""
    data = {RUNTIME_KEY: frame.config.model_dump_json(), FLOW_KEY: json.dumps(build_flow(frame), ensure_ascii=False)}
    for role, model, _ in language_models(frame.spec):
        data[warmup.prompts_key(role)] = warmup.prompts(frame, model)
    return frame.object(CONFIG_MAP, Part.CONFIG, data=data)


def build_flow(frame: Frame) -> Manifest:
    """The flow as the build Job needs it: other fields would train it anew for nothing."""
    flow = frame.flow.model_dump(mode="json", by_alias=True, exclude_none=True, include={"api_version", "kind", "spec"})
    spec = {name: flow["spec"][name] for name in ("locale", "knowledge", "models") if name in flow["spec"]}
    intent = spec["models"]["intent"]
    spec["models"] = {"intent": {name: intent[name] for name in intent if name not in ("kserve", "deadline")}}
    metadata = {"name": frame.flow.metadata.name, "namespace": frame.flow.metadata.namespace}
    return {"apiVersion": flow["apiVersion"], "kind": flow["kind"], "metadata": metadata, "spec": spec}


def redis_files(frame: Frame) -> Manifest:
    """The state server's configuration and start scripts."""
    folder = files.files("chatflow_operator.resources") / "redis"
    data = {name: (folder / name).read_text(encoding="utf-8") for name in REDIS_FILES}
    return frame.object(CONFIG_MAP, Part.REDIS, data=data)
