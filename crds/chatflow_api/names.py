"""Names that several parts must agree on: partitions and Redis keys, labels, annotations, objects of a flow."""

from __future__ import annotations

import binascii
import hashlib

PARTITIONS = 256
"""Number of state partitions; part of the stored schema, so it never changes."""


def partition(uid: str) -> int:
    """The partition of a user: CRC-16/XMODEM (Redis Cluster's own hash) of the UTF-8 bytes, modulo 256."""
    return binascii.crc_hqx(uid.encode(), 0) % PARTITIONS


def hash_tag(flow: str, number: int) -> str:
    """The hash tag that keeps one partition of one flow in one Redis Cluster slot."""
    return f"{{{flow}.{number}}}"


def conversation_key(flow: str, uid: str) -> str:
    """The small hot state of a conversation (msgpack)."""
    return f"conv:{hash_tag(flow, partition(uid))}:{uid}"


def history_key(flow: str, uid: str) -> str:
    """The last messages of a conversation (list of msgpack)."""
    return f"hist:{hash_tag(flow, partition(uid))}:{uid}"


def outbox_key(flow: str, uid: str) -> str:
    """Replies and notices to a user (stream); its ids are the SSE ids."""
    return f"out:{hash_tag(flow, partition(uid))}:{uid}"


def replies_key(flow: str, uid: str) -> str:
    """Replies by client message id (hash of msgpack), so that a message takes effect once."""
    return f"msg:{hash_tag(flow, partition(uid))}:{uid}"


def user_rate_key(flow: str, uid: str) -> str:
    """How far ahead of their rate a user's messages are (a time in ms)."""
    return f"rate:{hash_tag(flow, partition(uid))}:{uid}"


def address_rate_key(flow: str, address: str) -> str:
    """The same of the requests of a client address, each under a hash tag of its own."""
    return f"rate:{{{flow}.a.{address}}}"


def due_key(flow: str, number: int) -> str:
    """Users of a partition by the time, in ms, at which their conversation wants a notice or ends (sorted set)."""
    return f"due:{hash_tag(flow, number)}"


def records_key(flow: str, number: int) -> str:
    """Records on their way to a sink: labelling candidates and ratings of a partition (stream of msgpack)."""
    return f"rec:{hash_tag(flow, number)}"


def session_key_key(flow: str) -> str:
    """The random key that signs a flow's session tokens, where no Secret gives one (string)."""
    return f"session-key:{{{flow}}}"


def answer_key(flow: str, revision: str, text: str) -> str:
    """A knowledge answer that gateways share, by the versions that made it and a digest of the question (msgpack)."""
    digest = hashlib.blake2b(f"{revision}\0{text}".encode(), digest_size=16).hexdigest()
    return f"answer:{flow}:{digest}"


def backlog_key(flow: str) -> str:
    """How many turns each process of a flow has under way, and when it said so (hash)."""
    return f"backlog:{{{flow}}}"


def workers_key(flow: str) -> str:
    """The workers of a flow by the time, in ms, at which they last told that they live (sorted set)."""
    return f"workers:{{{flow}}}"


def lease_key(flow: str, number: int) -> str:
    """Which worker has a partition, since when, and the token of that ownership (hash)."""
    return f"lease:{hash_tag(flow, number)}"


def inbox_key(flow: str, number: int) -> str:
    """Messages of a partition that wait for a worker (stream of msgpack, one consumer group)."""
    return f"inbox:{hash_tag(flow, number)}"


def accepted_key(flow: str, number: int) -> str:
    """What an inbox holds, by user and message id, and how many of each user (hash)."""
    return f"accepted:{hash_tag(flow, number)}"


def dead_key(flow: str, number: int) -> str:
    """Messages of a partition that could not be answered, and deliveries that no webhook took, each with the reason
    (stream)."""
    return f"dead:{hash_tag(flow, number)}"


def hooks_key(flow: str, number: int) -> str:
    """What webhooks of a partition are still to be told (stream of msgpack)."""
    return f"hook:{hash_tag(flow, number)}"


def work_channel(flow: str, number: int) -> str:
    """Channel on which a partition's worker is told of new messages in the inbox, or for webhooks."""
    return f"work:{hash_tag(flow, number)}"


def wake_channel(flow: str, number: int) -> str:
    """Channel on which a commit tells which user of a partition has news."""
    return f"wake:{hash_tag(flow, number)}"


MANAGED_BY = "chatflow-operator"
"""Field manager of everything that the operator applies, and the value of the label managed-by."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_FLOW = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
ANNOTATION_CONFIG_HASH = "chatflow.dev/config-hash"
"""On pod templates: a change of what a pod reads at its start changes it, and so rolls the pods."""
ANNOTATION_REBUILD = "chatflow.dev/rebuild"
"""On a ChatFlow: another value trains and indexes anew, for content that lies on volumes."""


def flow_labels(flow: str) -> dict[str, str]:
    """The labels by which everything of a flow is found."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_FLOW: flow}


PREDICTOR = "-predictor"
"""What KServe adds to the name of an InferenceService for its Deployment and its Service."""


def inference_service(flow: str, role: str) -> str:
    """Name of the InferenceService of a flow's model."""
    return f"{flow}-{role}"


def predictor_host(flow: str, namespace: str, role: str) -> str:
    """Where KServe serves it, inside the cluster (Standard mode, port 80)."""
    return f"{inference_service(flow, role)}{PREDICTOR}.{namespace}.svc"


METRIC_TURNS_IN_FLIGHT = "chatflow_turns_in_flight"
"""Messages being answered or waiting, of each gateway: autoscalers read these metrics."""
METRIC_FIRST_TOKENS = "chatflow_first_token_seconds"
"""Time to the first token of a language model, a histogram by `origin` (llm, backup)."""
METRIC_MODEL_WAITING = "chatflow_model_waiting_turns"
"""Turns that want a model now, by `role` (llm, backup), also while none of its servers runs: they wake one."""
