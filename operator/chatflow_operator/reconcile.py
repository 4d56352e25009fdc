"""Observe, plan, apply, report: brings one flow after another up to date. Called by `handlers`, which feeds it events.

Level-triggered: an event only says which flow to look at. What has to be done follows from what is, so that a crash at
any point, a lost event or a repeated one make no difference.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
from chatflow_api.names import LABEL_MANAGED_BY, MANAGED_BY

from chatflow_operator import objects
from chatflow_operator.cache import Cache
from chatflow_operator.cluster import Cluster
from chatflow_operator.contention import Contention
from chatflow_operator.errors import ApiError, Conflict, NotFound
from chatflow_operator.events import event_of
from chatflow_operator.metrics import Metrics
from chatflow_operator.objects import KINDS, FlowName, Manifest, Name
from chatflow_operator.observation import Child, Observed
from chatflow_operator.plan import Environment, FlowInvalid, Plan, Write, is_ours, plan, read_flow
from chatflow_operator.projection import differences, owned_fields
from chatflow_operator.references import references_of
from chatflow_operator.resources.frame import digest
from chatflow_operator.work_queue import WorkQueue

log = structlog.get_logger()

RESYNC_SPREAD_S = 60.0
TOLD_ATTEMPTS = 3
"""What fails so often in a row is told in the status, although it may yet pass."""
SETTLE_S = 0.2
"""Events of children come in swarms; a flow is looked at once for all that come within this time."""
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 300.0
RECHECK_S = 15.0
"""How soon a flow is looked at again whose objects stand in somebody else's place."""
SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY}"


@dataclass
class _Memory:
    """What is remembered of a flow between looks; losing it costs an attempt, never correctness."""

    failures: dict[Name, str] = field(default_factory=dict)
    foreign: set[Name] = field(default_factory=set)
    attempts: int = 0
    applied: dict[Name, str] = field(default_factory=dict)
    """What each object was last written as, by digest."""
    build_messages: dict[str, str] = field(default_factory=dict)


class Reconciler:
    """Looks after all flows of a cluster, or of some namespaces."""

    def __init__(
        self,
        cluster: Cluster,
        environment: Environment,
        metrics: Metrics,
        *,
        namespaces: tuple[str, ...] = (),
        now_s: Callable[[], float] = time.time,
        new_password: Callable[[], str],
    ) -> None:
        self.cache = Cache()
        self.queue: WorkQueue[FlowName] = WorkQueue()
        self._cluster = cluster
        self._environment = environment
        self._metrics = metrics
        self._namespaces = namespaces
        self._now_s = now_s
        self._new_password = new_password
        self._contention = Contention()
        self._memories: dict[FlowName, _Memory] = {}
        self._apis: frozenset[str] = frozenset()
        self._runtimes: frozenset[str] = frozenset()
        self._may_work = asyncio.Event()
        self.last_look_s = now_s()
        """When a worker last came round; liveness looks at it."""
        metrics.watch(lambda: len(self.queue), lambda: len(self.cache))

    # Events

    def see_flow(self, body: Manifest, *, is_deleted: bool) -> None:
        """A flow was made, changed or deleted."""
        for flow in self.cache.see_flow(body, is_deleted=is_deleted):
            self.queue.add(flow)

    def see_child(self, body: Manifest, *, is_deleted: bool) -> None:
        """An object with the operator's label was made, changed or deleted."""
        for flow in self.cache.see_child(body, is_deleted=is_deleted):
            self.queue.add(flow, SETTLE_S)

    def see_content(self, body: Manifest, *, is_deleted: bool) -> None:
        """A ConfigMap or Secret was made, changed or deleted."""
        for flow in self.cache.see_content(body, is_deleted=is_deleted):
            self.queue.add(flow, SETTLE_S)

    async def discover(self) -> None:
        """Learn which optional APIs there are; flows are looked at again when that has changed."""
        found = await self._cluster.optional_kinds()
        runtimes = await self._runtimes_of(found)
        if (found, runtimes) != (self._apis, self._runtimes):
            log.info("apis_found", kinds=sorted(found), runtimes=sorted(runtimes))
            self._apis, self._runtimes = found, runtimes
            for flow in self.cache.flows():
                self.queue.add(flow)

    async def load(self) -> None:
        """Read all children before the first look, so that it finds them instead of asking for each."""
        self._apis = await self._cluster.optional_kinds()
        self._runtimes = await self._runtimes_of(self._apis)
        for kind in objects.CHILDREN:
            if kind.is_optional and kind.kind not in self._apis:
                continue
            for namespace in self._namespaces or (None,):
                async for body in self._cluster.all(kind, namespace, SELECTOR):
                    self._see(kind.kind, body)

    async def _runtimes_of(self, apis: frozenset[str]) -> frozenset[str]:
        """KServe's runtimes. Where they cannot be read those of before: another choice starts all servers anew."""
        if objects.SERVING_RUNTIME.kind not in apis:
            return frozenset()
        found = await self._cluster.serving_runtimes()
        return self._runtimes if found is None else found

    def is_stuck(self, seconds: float) -> bool:
        """Whether flows wait and none has been looked at for so long."""
        return not self.is_held and self.queue.is_overdue(seconds) and self._now_s() - self.last_look_s > seconds

    async def resync(self) -> None:
        """Look at every flow again, spread over a minute: what no event told of is found so."""
        flows = self.cache.flows()
        for number, flow in enumerate(flows):
            self.queue.add(flow, RESYNC_SPREAD_S * number / len(flows))

    async def verify(self) -> None:
        """Compare the cache with lists of all children: an event of a deletion may have been lost."""
        namespaces = self._namespaces or (None,)
        known = self.cache.flow_uids()
        for namespace in namespaces:
            known -= await self._cluster.uids(objects.CHATFLOW, namespace, "")
        self.cache.drop_flows(known)
        scope = frozenset(self._namespaces) or None
        for kind in objects.CHILDREN:
            if kind.is_optional and kind.kind not in self._apis:
                continue
            living: set[str] = set()
            for namespace in namespaces:
                living |= set(await self._cluster.uids(kind, namespace, SELECTOR))
            for flow in self.cache.drop_children(kind.kind, scope, living):
                self.queue.add(flow)

    # Work

    @property
    def is_held(self) -> bool:
        """Whether no looks are begun."""
        return not self._may_work.is_set()

    def hold(self) -> None:
        """Begin no more looks: another operator works."""
        self._may_work.clear()

    async def go_on(self) -> None:
        """Work, at first and after `hold`. Whatever is known by then is read anew: watches told nothing meanwhile."""
        if self.cache.flows():
            for namespace in self._namespaces or (None,):
                async for body in self._cluster.all(objects.CHATFLOW, namespace, ""):
                    self.see_flow({**body, "kind": objects.CHATFLOW.kind}, is_deleted=False)
            self.cache.forget_contents()
            await self.load()
            await self.verify()
        self.last_look_s = self._now_s()
        self._may_work.set()

    async def work(self) -> None:
        """Look at one flow after another, until cancelled; not while held."""
        while True:
            flow = await self.queue.take()
            await self._may_work.wait()
            try:
                await self._attempt(flow)
            finally:
                self.queue.done(flow)
                self.last_look_s = self._now_s()

    async def _attempt(self, flow: FlowName) -> None:
        began_s = time.monotonic()
        try:
            wait_s = await self.reconcile(flow)
            outcome = "done" if wait_s is None else "again"
        except ApiError as error:
            self._metrics.failed(error.code)
            wait_s, outcome = self._pause_s(flow, error.retry_after_s), "failed"
            log.warning(
                "reconcile_failed", flow=str(flow), code=error.code, reason=str(error), retry_s=round(wait_s, 1)
            )
        except Exception:  # A flow that breaks the operator must not stop the others.
            self._metrics.failed("bug")
            wait_s, outcome = self._pause_s(flow, None), "failed"
            log.exception("reconcile_broke", flow=str(flow))
        self._metrics.reconciled(outcome, time.monotonic() - began_s)
        if wait_s is not None:
            self.queue.add(flow, wait_s)

    def _pause_s(self, flow: FlowName, asked_s: float | None) -> float:
        memory = self._memories.setdefault(flow, _Memory())
        memory.attempts += 1
        pause_s: float = min(FIRST_RETRY_S * 2.0 ** (memory.attempts - 1), LAST_RETRY_S)
        return max(pause_s, asked_s or 0.0)

    async def reconcile(self, flow: FlowName) -> float | None:
        """Bring one flow up to date: seconds until it wants another look; None when only an event calls for one.

        ApiError when something could not be done and is worth another attempt.
        """
        body = self.cache.flow(flow)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._memories.pop(flow, None)
            self._contention.forget(flow)
            return None
        memory = self._memories.setdefault(flow, _Memory())
        memory.foreign.clear()
        memory.failures.clear()
        await self._read_references(flow, body)
        children = self.cache.children(flow)
        await self._read_build_message(flow, children, memory)
        planned = self._plan(flow, body, memory, children)
        trouble = await self._carry_out(flow, body, planned, memory)
        if planned.writes or planned.prunes:
            planned = self._plan(flow, body, memory, self.cache.children(flow))
            if trouble is None and any(write.replaces is None for write in planned.writes):
                # Half of the objects are there: a status now would take them for all.
                return 0.0
        await self._report(flow, body, planned)
        if trouble is not None:
            raise trouble
        memory.attempts = 0
        if planned.writes:
            return 0.0
        return RECHECK_S if memory.foreign else planned.requeue_s

    async def _read_references(self, flow: FlowName, body: Manifest) -> None:
        """Read what the flow refers to and no event has told of yet."""
        try:
            wanted = frozenset(name for _, name, _ in references_of(read_flow(body).spec))
        except FlowInvalid:
            return
        for name in self.cache.refer(flow, wanted):
            found = await self._cluster.read(KINDS[name.kind], flow.namespace, name.name)
            if found is not None:
                self.cache.see_content({**found, "kind": name.kind}, is_deleted=False)

    def _plan(self, flow: FlowName, body: Manifest, memory: _Memory, children: Mapping[Name, Child]) -> Plan:
        now_s = self._now_s()
        observed = Observed(
            children=children,
            references=self.cache.references(flow),
            apis=self._apis,
            runtimes=self._runtimes,
            foreign=frozenset(memory.foreign),
            contests=self._contention.contests(flow, now_s),
            failures=dict(memory.failures),
            build_message=_build_message(children, memory.build_messages),
            password=self._new_password(),
        )
        return plan(body, observed, self._environment, now_s)

    async def _carry_out(self, flow: FlowName, body: Manifest, planned: Plan, memory: _Memory) -> ApiError | None:
        """Write and prune; the last error that is worth another attempt."""
        trouble: ApiError | None = None
        for child in planned.prunes:
            try:
                await self._cluster.delete(KINDS[child.name.kind], flow.namespace, child.name.name, child.uid)
            except ApiError as error:
                trouble = error
        for write in planned.writes:
            try:
                await self._write(flow, body, write, memory)
            except ApiError as error:
                trouble = error
                if not error.is_retryable or memory.attempts >= TOLD_ATTEMPTS:
                    memory.failures[write.planned.name] = str(error)
        return trouble

    async def _write(self, flow: FlowName, body: Manifest, write: Write, memory: _Memory) -> None:
        planned, kind = write.planned, KINDS[write.planned.name.kind]
        uid, paths = write.replaces, write.paths
        if uid is None:
            found = await self._cluster.read(kind, flow.namespace, planned.name.name)
            if found is not None:
                child = Child.of({**found, "kind": kind.kind}, owned_fields(found, MANAGED_BY), has_status=False)
                if not is_ours(child, planned, body["metadata"]["uid"]):
                    memory.foreign.add(planned.name)
                    return
                uid, paths = child.uid, tuple(differences(planned.manifest, child.fields))
                if child.is_going or planned.is_created_once or not paths:
                    # Also without the label by which it is watched, which is not written anew.
                    self.cache.keep_child(flow, {**found, "kind": kind.kind})
                    return
        content = digest(planned.manifest)
        try:
            self._see(kind.kind, await self._cluster.apply(kind, planned.manifest, uid=uid))
        except Conflict:
            # Another object stands there by now; the next look reads it.
            self.cache.drop_child(flow, planned.name)
            raise
        if memory.applied.get(planned.name) == content:
            # The plan is what it was when this object was written last: somebody else has changed it.
            self._contention.note(flow, planned.name, paths or ("",), self._now_s())
            self._metrics.repaired(kind.kind)
            log.info("repairs", flow=str(flow), object=str(planned.name), fields=list(paths[:5]))
        memory.applied[planned.name] = content

    def _see(self, kind: str, live: Manifest) -> None:
        self.cache.see_child({**live, "kind": kind}, is_deleted=False)

    async def _read_build_message(self, flow: FlowName, children: Mapping[Name, Child], memory: _Memory) -> None:
        for child in children.values():
            if child.name.kind != objects.JOB.kind or child.uid in memory.build_messages:
                continue
            if any(one["type"] == "Failed" and one["status"] == "True" for one in child.status.get("conditions", ())):
                message = await self._cluster.termination_message(flow.namespace, child.name.name)
                memory.build_messages[child.uid] = message

    async def _report(self, flow: FlowName, body: Manifest, planned: Plan) -> None:
        if planned.status is not None:
            try:
                live = await self._cluster.write_status(flow, body["metadata"]["uid"], planned.status)
            except NotFound:
                # If no event tells of it, the next comparison does.
                log.info("flow_is_gone", flow=str(flow))
                return
            self.cache.see_flow({**live, "kind": objects.CHATFLOW.kind}, is_deleted=False)
        for transition in planned.transitions:
            try:
                await self._cluster.post_event(flow.namespace, event_of(body, transition, self._now_s()))
            except ApiError as error:
                # An Event is a courtesy; the same is said in the status.
                log.warning("event_not_posted", flow=str(flow), reason=str(error))


def _build_message(children: Mapping[Name, Child], messages: Mapping[str, str]) -> str:
    return next((messages[child.uid] for child in children.values() if messages.get(child.uid)), "")


async def periodically(every_s: float, what: Callable[[], Awaitable[None]], name: str) -> None:
    """Do something again and again; an API server that is away is no reason to stop."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await what()
        except ApiError as error:
            log.warning("periodic_work_failed", work=name, reason=str(error))
        except Exception:  # The next time may go well, and nobody else would do this work.
            log.exception("periodic_work_broke", work=name)
