"""Owned fields against plans: what counts as drift, with managedFields as a real API server writes them."""

from __future__ import annotations

from typing import Any

import pytest
from chatflow_operator.objects import Manifest
from chatflow_operator.projection import differences, owned_fields, quantity
from hypothesis import given
from hypothesis import strategies as st

PLANNED: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "namespace": "x", "labels": {"a": "1"}, "ownerReferences": [{"uid": "u", "name": "o"}]},
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "args": ["--a", "--b"],
                        "ports": [{"containerPort": 80, "name": "http"}],
                        "resources": {"requests": {"cpu": "1000m", "memory": "0.5Gi"}},
                    }
                ],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            }
        }
    },
}


def live(**change: Any) -> Manifest:
    """The object as the server holds it: defaults added, amounts in its own form."""
    container = {
        "name": "main",
        "args": change.get("args", ["--a", "--b"]),
        "imagePullPolicy": "Always",
        "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "1", "memory": change.get("memory", "512Mi")}},
    }
    port = 'k:{"containerPort":80,"protocol":"TCP"}'
    fields = {
        "f:metadata": {
            "f:labels": change.get("labels", {"f:a": {}}),
            "f:ownerReferences": {'k:{"uid":"u"}': {}},
        },
        "f:spec": {
            "f:template": {
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"main"}': {
                            ".": {},
                            "f:name": {},
                            "f:args": {},
                            "f:ports": {port: {".": {}, "f:containerPort": {}, "f:name": {}}},
                            "f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}},
                        }
                    },
                    "f:volumes": {'k:{"name":"tmp"}': {".": {}, "f:name": {}, "f:emptyDir": {}}},
                }
            }
        },
    }
    entry = {"manager": "us", "operation": "Apply", "fieldsV1": fields}
    other = {"manager": "them", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    return {
        **PLANNED,
        "metadata": {
            **PLANNED["metadata"],
            "labels": {"a": "1", "b": "2"},
            "ownerReferences": [{"uid": "u", "name": "o"}],
            "managedFields": [other, entry],
        },
        "spec": {
            "replicas": 7,
            "template": {
                "spec": {
                    "containers": [{"name": "injected", "image": "x"}, container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "injected"}],
                }
            },
        },
    }


def test_defaults_and_the_fields_of_others_are_no_drift() -> None:
    assert differences(PLANNED, owned_fields(live(), "us")) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        pytest.param(
            {"args": ["--b", "--a"]}, ".spec.template.spec.containers[0].args", id="another order of arguments"
        ),
        pytest.param(
            {"memory": "1Gi"}, ".spec.template.spec.containers[0].resources.requests.memory", id="another amount"
        ),
        pytest.param({"labels": {".": {}}}, ".metadata.labels.a", id="a field that is somebody else's now"),
        pytest.param({"labels": {"f:a": {}, "f:b": {}}}, ".metadata.labels.b", id="a field that the plan has dropped"),
    ],
)
def test_what_somebody_changed_is_drift(change: Manifest, path: str) -> None:
    assert path in " ".join(differences(PLANNED, owned_fields(live(**change), "us")))


def test_of_an_object_that_the_operator_never_wrote_it_owns_nothing() -> None:
    assert owned_fields(live(), "nobody") == {}


@pytest.mark.parametrize(
    ("one", "other"), [("1000m", "1"), ("0.5Gi", "512Mi"), ("2Gi", "2147483648"), ("1k", "1000"), ("100m", "0.1")]
)
def test_amounts_are_compared_by_value(one: str, other: str) -> None:
    assert quantity(one) == quantity(other)


@pytest.mark.parametrize("text", ["", "m", "1Gi2", "abc", "12e345678901234"])
def test_what_is_no_amount_has_no_value(text: str) -> None:
    assert quantity(text) is None


@pytest.mark.parametrize(("planned", "there"), [("1", "1000m"), ("1e2", "100"), ("77e2150364801", "6d2150364801")])
def test_texts_that_look_like_amounts_are_compared_as_texts(planned: str, there: str) -> None:
    fields = {"metadata": {"annotations": {"plan": there}}, "data": {"requests.txt": there}}
    wanted = {"metadata": {"annotations": {"plan": planned}}, "data": {"requests.txt": planned}}
    assert differences(wanted, fields) == [".metadata.annotations.plan", ".data.requests.txt"]


@given(st.text(), st.text())
def test_any_text_is_as_planned_when_it_is_the_same_and_only_then(planned: str, there: str) -> None:
    quantity(planned)
    wanted = {"metadata": {}, "data": {"key": planned}}
    assert differences(wanted, {"metadata": {}, "data": {"key": planned}}) == []
    assert bool(differences(wanted, {"metadata": {}, "data": {"key": there}})) == (planned != there)
