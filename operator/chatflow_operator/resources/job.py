"""The Job that trains the intent model and builds the knowledge index, one for each content."""

from __future__ import annotations

from chatflow_api.names import ANNOTATION_REBUILD

from chatflow_operator.objects import JOB, Manifest
from chatflow_operator.references import sources_of
from chatflow_operator.resources import pods
from chatflow_operator.resources.configmap import FLOW_KEY, build_flow
from chatflow_operator.resources.frame import Frame, Part, digest

ANNOTATION_CONTENT = "chatflow.dev/content"
READY_FILE = "/tmp/index-in-force"  # noqa: S108  The container's own.
VOLUMES_DIR = "/var/lib/chatflow/volumes"
RETRIES = 2


def content_hash(frame: Frame) -> str:
    """Stands for all that goes into the artefacts, except what lies on volumes: the annotation chatflow.dev/rebuild
    stands for that."""
    named = {key: value for key, value in frame.content.items() if key in frame.build_references()}
    rebuild = frame.annotations.get(ANNOTATION_REBUILD, "")
    return digest(build_flow(frame)["spec"], named, frame.images.builder, rebuild)


def build(frame: Frame) -> Manifest:
    """Ready once the index is in force, complete once the intent model is too."""
    content = content_hash(frame)
    volumes, mounts, arguments = _sources(frame)
    container = pods.container(
        frame,
        "build",
        frame.images.builder,
        args=[
            f"--flow={pods.CONFIG_DIR}/{FLOW_KEY}",
            f"--configmaps={pods.CONFIGMAPS_DIR}",
            f"--artefacts={pods.ARTEFACTS_DIR}",
            f"--ready-file={READY_FILE}",
            *arguments,
        ],
        # A small share of the CPU: where it is scarce, those who answer come first.
        resources={"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
        readinessProbe={"exec": {"command": ["test", "-e", READY_FILE]}, "periodSeconds": 1},
        terminationMessagePolicy="FallbackToLogsOnError",
        volumeMounts=[
            {"name": "config", "mountPath": pods.CONFIG_DIR, "readOnly": True},
            {"name": "data", "mountPath": pods.ARTEFACTS_DIR, "subPath": "artefacts"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  The container's own.
            *mounts,
        ],
    )
    spec = pods.pod_spec(
        frame,
        restartPolicy="Never",
        containers=[container],
        volumes=[pods.config_volume(frame), pods.data_volume(frame), {"name": "tmp", "emptyDir": {}}, *volumes],
        **pods.together(frame),
    )
    manifest = frame.object(
        JOB,
        Part.BUILD,
        name=f"{frame.name(Part.BUILD)}-{content[:8]}",
        spec={
            "backoffLimit": RETRIES,
            "template": {"metadata": {"labels": frame.labels(Part.BUILD)}, "spec": spec},
        },
    )
    manifest["metadata"]["annotations"] = {ANNOTATION_CONTENT: content}
    return manifest


def _sources(frame: Frame) -> tuple[list[Manifest], list[Manifest], list[str]]:
    """(volumes, mounts, arguments) of ConfigMaps and claims that sources name, each once."""
    maps: dict[str, None] = {}
    claims: dict[str, None] = {}
    for _, source in sources_of(frame.spec):
        if source.config_map is not None:
            maps[source.config_map.name] = None
        elif source.persistent_volume_claim is not None:
            claims[source.persistent_volume_claim.claim_name] = None
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    for number, name in enumerate(maps):
        volumes.append({"name": f"content-{number}", "configMap": {"name": name, "defaultMode": 0o444}})
        mounts.append({"name": f"content-{number}", "mountPath": f"{pods.CONFIGMAPS_DIR}/{name}", "readOnly": True})
    for number, name in enumerate(claims):
        volumes.append({"name": f"volume-{number}", "persistentVolumeClaim": {"claimName": name, "readOnly": True}})
        mounts.append({"name": f"volume-{number}", "mountPath": f"{VOLUMES_DIR}/{name}", "readOnly": True})
    return volumes, mounts, [f"--volume={name}={VOLUMES_DIR}/{name}" for name in claims]
