"""`chatflow render FILE`: the objects that the operator would apply, for review in a repository."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from chatflow_api import v1alpha1 as api
from chatflow_operator.objects import CHILDREN, Name
from chatflow_operator.observation import Observed
from chatflow_operator.plan import Environment, frame_of, wanted_objects
from chatflow_operator.references import references_of
from chatflow_operator.settings import DEFAULT_IMAGES, Images

from chatflow_cli.local.manifest_file import load
from chatflow_cli.local.objects import Objects

OPTIONAL = {kind.kind.lower(): kind.kind for kind in CHILDREN if kind.is_optional}
NO_UID = "00000000-0000-0000-0000-000000000000"
PASSWORD = "generated when it is applied"  # noqa: S105  What stands in its place.


@click.command("render")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-n", "--namespace", help="Namespace of the flow, when the manifest names none.")
@click.option("--uid", default=NO_UID, help="UID of the flow on its cluster, for owner references.  [zeros]")
@click.option(
    "--without",
    "absent",
    multiple=True,
    type=click.Choice(sorted(OPTIONAL)),
    help="An API that the cluster lacks; repeat it.",
)
@click.option("--runtime-image", default=DEFAULT_IMAGES["RUNTIME"], show_default=True, help="As in the chart's values.")
@click.option("--builder-image", default=DEFAULT_IMAGES["BUILDER"], show_default=True, help="As in the chart's values.")
@click.option("--redis-image", default=DEFAULT_IMAGES["REDIS"], show_default=True, help="As in the chart's values.")
@click.option("--intent-image", default=DEFAULT_IMAGES["INTENT"], show_default=True, help="As in the chart's values.")
@click.option("--warm-up-image", default=DEFAULT_IMAGES["WARMUP"], show_default=True, help="As in the chart's values.")
@click.option("--vllm-image", default=DEFAULT_IMAGES["VLLM"], show_default=True, help="As in the chart's values.")
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    default=("kserve-vllmserver",),
    help="A ClusterServingRuntime that the cluster has; repeat it.  [kserve-vllmserver]",
)
@click.option("--pull-policy", default="IfNotPresent", show_default=True, help="As in the chart's values.")
@click.option("--pull-secret", "pull_secrets", multiple=True, help="As in the chart's values; repeat it.  [none]")
@click.option("--prometheus-namespace", help="As in the chart's values.  [none]")
def command(
    file: Path,
    namespace: str | None,
    uid: str,
    absent: tuple[str, ...],
    runtime_image: str,
    builder_image: str,
    redis_image: str,
    intent_image: str,
    warm_up_image: str,
    vllm_image: str,
    runtimes: tuple[str, ...],
    pull_policy: str,
    pull_secrets: tuple[str, ...],
    prometheus_namespace: str | None,
) -> None:
    """Print the objects that the operator would apply for FILE.

    FILE is a manifest, or a folder with a manifest and its kustomization.yaml; ConfigMaps and Secrets beside it count
    into the hashes that roll pods. Only the generated password and, without --uid, the owner's UID differ from what a
    cluster gets.
    """
    files = load(file)
    flow = _placed(files.flow, namespace, uid)
    images = Images(
        runtime_image, builder_image, redis_image, intent_image, warm_up_image, vllm_image, pull_policy, pull_secrets
    )
    apis = frozenset(kind for name, kind in OPTIONAL.items() if name not in absent)
    observed = Observed(
        references=dict(_references(flow.spec, files.objects)),
        apis=apis,
        runtimes=frozenset(runtimes),
        password=PASSWORD,
    )
    frame = frame_of(flow, observed, Environment(images, prometheus_namespace))
    manifests = [planned.manifest for planned in wanted_objects(frame, observed)]
    click.echo(yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120), nl=False)


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out in full instead of as aliases, and long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  PyYAML's signature.
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _placed(flow: api.ChatFlow, namespace: str | None, uid: str) -> api.ChatFlow:
    update = {"uid": uid} if namespace is None else {"uid": uid, "namespace": namespace}
    return flow.model_copy(update={"metadata": flow.metadata.model_copy(update=update)})


def _references(spec: api.ChatFlowSpec, objects: Objects) -> Iterator[tuple[Name, Mapping[str, str]]]:
    """Digests of what lies beside the manifest; what does not is for the cluster to know."""
    kinds = {"ConfigMap": objects.configmaps, "Secret": objects.secrets}
    for _, name, _ in references_of(spec):
        data = kinds[name.kind].get(name.name)
        if data is not None:
            yield name, {key: hashlib.sha256(value).hexdigest()[:16] for key, value in data.items()}
