"""The PrometheusRule (prometheus-operator): alerts on what users notice."""

from __future__ import annotations

from chatflow_operator.objects import PROMETHEUS_RULE, Manifest
from chatflow_operator.resources.frame import Frame, Part

_FAILURES, _STATIC, _SLOW_S = 0.01, 0.05, 2.0
"""Share of turns that fail, share that get the static reply, and the first token's time at the 95th percentile."""


def alerts(frame: Frame) -> Manifest:
    """Four alerts, each for this flow's pods alone."""
    flow, namespace = frame.flow.metadata.name, frame.flow.metadata.namespace
    pods = f'namespace="{namespace}",pod=~"{frame.name(Part.GATEWAY)}-.+"'
    turns = f"sum(rate(chatflow_turns_total{{{pods}}}[5m]))"
    failures = f'sum(rate(chatflow_turn_failures_total{{{pods},code!="client_left"}}[5m]))'
    static = f'sum(rate(chatflow_turns_total{{{pods},rung="L2"}}[5m]))'
    shed = f"sum(rate(chatflow_shed_total{{{pods}}}[5m]))"
    buckets = f"sum by (le) (rate(chatflow_first_token_seconds_bucket{{{pods}}}[5m]))"
    rules = [
        _alert(
            "ChatFlowTurnsFail",
            f"{failures} / ({turns} + {failures}) > {_FAILURES}",
            "critical",
            f"More than {_FAILURES:.0%} of the messages to {flow} get no answer",
        ),
        _alert(
            "ChatFlowStaticReplies",
            f"{static} / {turns} > {_STATIC}",
            "warning",
            f"More than {_STATIC:.0%} of the messages to {flow} get the static reply: its models are late or away",
        ),
        _alert(
            "ChatFlowFirstTokenSlow",
            f"histogram_quantile(0.95, {buckets}) > {_SLOW_S}",
            "warning",
            f"One of twenty model answers of {flow} begins after more than {_SLOW_S:g} s",
        ),
        _alert("ChatFlowShedding", f"{shed} > 0", "warning", f"{flow} turns new conversations away"),
    ]
    group = {"name": f"chatflow.{namespace}.{flow}", "rules": rules}
    return frame.object(PROMETHEUS_RULE, Part.PODS, spec={"groups": [group]})


def _alert(name: str, expression: str, severity: str, summary: str) -> Manifest:
    return {
        "alert": name,
        "expr": expression,
        "for": "5m",
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }
