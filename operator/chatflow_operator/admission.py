"""What the admission webhook says of a flow: refused for what could never work, remarks for what is not there yet."""

from __future__ import annotations

from chatflow_api import v1alpha1 as api

from chatflow_operator import objects, policies
from chatflow_operator.cluster import Cluster
from chatflow_operator.objects import KINDS, Manifest, Name
from chatflow_operator.observation import Observed
from chatflow_operator.plan import FlowInvalid, read_flow
from chatflow_operator.references import references_of
from chatflow_operator.served_models import roles_served


class Refused(Exception):
    """The flow could never work; the message names the fields."""


def check(body: Manifest) -> api.ChatFlow:
    """The flow, by the types' own rules: those between fields go beyond what the CRD can say."""
    try:
        return read_flow(body)
    except FlowInvalid as error:
        raise Refused(str(error)) from error


async def remarks(flow: api.ChatFlow, cluster: Cluster) -> list[str]:
    """What is missing now and may come: no reason to refuse, since a repository is applied in any order."""
    references: dict[Name, dict[str, str]] = {}
    for _, name, _ in references_of(flow.spec):
        if name not in references:
            found = await cluster.read(KINDS[name.kind], flow.metadata.namespace, name.name)
            if found is not None:
                references[name] = dict.fromkeys([*(found.get("data") or {}), *(found.get("binaryData") or {})], "")
    said = [message for _, _, message in policies.missing_references(flow.spec, Observed(references=references))]
    if roles_served(flow.spec) and objects.INFERENCE_SERVICE.kind not in await cluster.optional_kinds():
        said.append("spec.models asks for KServe, which this cluster lacks; the chat answers without these models")
    return said
