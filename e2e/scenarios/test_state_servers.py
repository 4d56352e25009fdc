"""Three state servers under Sentinel on a real cluster: one goes, and the chat goes on with all it had acknowledged."""

from __future__ import annotations

import time

import pytest

from e2e.harness.flows import chat, conditions, wait_ready
from e2e.harness.workspace import Workspace
from e2e.scenarios.test_operator import faq, small


@pytest.mark.timeout(600)
def test_three_state_servers_go_on_when_the_primary_dies(flows: Workspace) -> None:
    flows.apply(faq(), small("trio", replicas=3))
    wait_ready(flows, "trio", 240)
    # Two of three are enough to answer.
    flows.eventually(
        "every sentinel can fail over",
        lambda: conditions(flows, "trio")["StateReady"]["reason"] == "HighlyAvailable",
        120,
    )
    first = flows.eventually("a primary is known", lambda: primary_of(flows, "trio"), 30)
    sessions: dict[str, str] = {}
    with chat(flows, "trio", sessions) as reached:
        reply = reached.ask("When are you open?", user="before", message_id="m1")
    written = int(replication_of(flows, first)["master_repl_offset"])
    flows.eventually("the replicas have it", lambda: min(replica_offsets(flows, first)) >= written, 30)

    def answers() -> bool:
        with chat(flows, "trio") as reached:
            return bool(reached.ask("When are you open?", user=f"after-{time.monotonic()}")["text"])

    def is_remembered() -> bool:
        with chat(flows, "trio", sessions) as reached:
            return reached.ask("When are you open?", user="before", message_id="m1") == reply

    # It hangs: nobody gets an answer from it, and it does not come back by itself in time. A sentinel that was held up
    # itself, by a busy node, acts on nothing for thirty seconds.
    redis_cli(flows, first, "client pause 240000 all")
    began = time.monotonic()
    flows.eventually("another primary is known", lambda: primary_of(flows, "trio", asked=first) != first, 150)
    flows.eventually("the chat answers again", answers, 60)
    print(f"answered {time.monotonic() - began:.1f} s after the primary hung")
    assert is_remembered(), "what was acknowledged before is answered the same"

    # It is ended, and comes back as a replica.
    flows.kubectl.exec(first, "sh", "-c", "kill 1", container="redis")
    second = flows.eventually("the primary is known", lambda: primary_of(flows, "trio"), 30)
    flows.wait_rollout("statefulset", "trio-redis")
    flows.eventually("the first one follows", lambda: len(replica_offsets(flows, second)) == 2, 90)
    began = time.monotonic()
    # It hands over before it goes.
    flows.kubectl.run("delete", "pod", second, "--wait=false")
    flows.eventually("the primary has moved", lambda: primary_of(flows, "trio", asked=second) != second, 60)
    flows.eventually("the chat answers again", answers, 60)
    print(f"answered {time.monotonic() - began:.1f} s after the primary was told to go")
    assert is_remembered()
    flows.wait_rollout("statefulset", "trio-redis")


def redis_cli(workspace: Workspace, pod: str, command: str, port: int = 6379) -> str:
    """What a state server answers, or with its port the sentinel beside it."""
    script = f'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -p {port} {command}'
    return workspace.kubectl.exec(pod, "sh", "-c", script, container="redis")


def replication_of(workspace: Workspace, pod: str) -> dict[str, str]:
    """INFO replication."""
    lines = redis_cli(workspace, pod, "info replication").split()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def replica_offsets(workspace: Workspace, primary: str) -> list[int]:
    """How far each replica has come; an empty list stands for a primary that has none."""
    told = replication_of(workspace, primary)
    rows = [value for name, value in told.items() if name.startswith("slave") and "offset=" in value]
    return [int(row.split("offset=")[1].split(",")[0]) for row in rows]


def primary_of(workspace: Workspace, name: str, asked: str = "") -> str | None:
    """The pod that a sentinel takes for the primary; one that is not beside the server `asked` about."""
    beside = next(pod for number in range(3) if (pod := f"{name}-redis-{number}") != asked)
    said = redis_cli(workspace, beside, "sentinel get-master-addr-by-name primary", port=26379).split()
    return said[0].split(".")[0] if said else None
