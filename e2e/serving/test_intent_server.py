"""The intent server as a process, spoken to by KServe's own clients and by plain HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chatflow_api.inference import EMBEDDING, OUTPUTS
from chatflow_models.intent import IntentModel, Prediction, load_encoder
from chatflow_models.training import train
from grpc import StatusCode
from grpc.aio import AioRpcError
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.infer_type import RequestedOutput
from tests_models.flow_examples import EXAMPLES
from tests_models.onnx_files import write_encoder

TEXTS = ["where is my parcel", "我要退款", "i need an invoice for my company", "tell me a joke"]
START_S, ROUNDING = 120.0, 1e-5


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    grpc_port: int

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"content-type": "application/json", **named})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def predict(self, texts: list[Any], **more: Any) -> tuple[int, dict[str, str], Any]:
        """A V1 request."""
        status, headers, body = self.ask(
            "POST", "/v1/models/intent:predict", json.dumps({"instances": texts, **more}).encode()
        )
        return status, headers, json.loads(body)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """A server that is ready, while the context lasts. On a busy machine a request may wait for long."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, grpc_port = one.getsockname()[1], other.getsockname()[1]
    command = [sys.executable, "-m", "chatflow_models.serving", f"--model_dir={folder}", "--host=127.0.0.1"]
    process = subprocess.Popen(
        [*command, f"--http_port={port}", f"--grpc_port={grpc_port}", "--max_wait_ms=60000", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    server = Server(process, port, grpc_port)
    try:
        end = time.monotonic() + START_S
        while not _is_ready(server):
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < end, "not ready in time"
            time.sleep(0.1)
        yield server
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def _is_ready(server: Server) -> bool:
    try:
        return server.ask("GET", "/v2/health/ready")[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(artefact: Path) -> Iterator[Server]:
    """A server that all tests share."""
    with serving(artefact) as running:
        yield running


@pytest.fixture(scope="module")
def expected(artefact: Path) -> list[Prediction]:
    """What the model says by itself."""
    return IntentModel.load(artefact).predict(TEXTS)


def test_v1_and_v2_give_what_the_model_gives(server: Server, expected: list[Prediction]) -> None:
    status, _, v1 = server.predict(TEXTS, parameters={"embedding": True})
    assert status == 200
    given = {"name": "text", "datatype": "BYTES", "shape": [len(TEXTS)], "data": TEXTS}
    wanted: list[dict[str, Any]] = [{"name": tensor.name} for tensor in OUTPUTS]
    wanted.append({"name": EMBEDDING.name, "parameters": {"binary_data": True}})
    body = json.dumps({"inputs": [given], "outputs": wanted}).encode()
    status, headers, answer = server.ask("POST", "/v2/models/intent/infer", body)
    length = int(headers["inference-header-content-length"])
    v2 = {tensor["name"]: tensor for tensor in json.loads(answer[:length])["outputs"]}
    vectors = np.frombuffer(answer[length:], dtype="<f4").reshape(v2["embedding"]["shape"])
    for number, prediction in enumerate(expected):
        row = v1["predictions"][number]
        assert row["intent"] == v2["intent"]["data"][number] == prediction.intent
        assert row["confidence"] == pytest.approx(prediction.confidence, abs=1e-5)
        assert v2["out_of_scope"]["data"][number] == pytest.approx(prediction.out_of_scope, abs=1e-5)
        assert prediction.embedding is not None
        assert vectors[number] == pytest.approx(prediction.embedding, abs=1e-5)
        assert row["embedding"] == pytest.approx(prediction.embedding.tolist(), abs=1e-5)


def test_kserves_own_clients_are_understood(server: Server, expected: list[Prediction]) -> None:
    async def by_grpc() -> dict[str, Any]:
        client = InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")
        try:
            answer = await client.infer(InferRequest("intent", [InferInput("text", [len(TEXTS)], "BYTES", TEXTS)]))
            return {output.name: output for output in answer.outputs}
        finally:
            await client.close()

    tensors = asyncio.run(by_grpc())
    assert list(tensors) == [tensor.name for tensor in OUTPUTS]
    assert tensors["confidence"].as_numpy() == pytest.approx([one.confidence for one in expected], abs=1e-5)

    given = InferInput("text", [len(TEXTS)], "BYTES")
    given.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object))
    request = InferRequest("intent", [given], request_outputs=[RequestedOutput("confidence", {"binary_data": True})])
    body, length = request.to_rest()
    status, headers, answer = server.ask(
        "POST", "/v2/models/intent/infer", body,
        content_type="application/octet-stream", inference_header_content_length=str(length),
    )  # fmt: skip
    assert status == 200
    values = np.frombuffer(answer[int(headers["inference-header-content-length"]) :], dtype="<f4")
    assert values == pytest.approx([one.confidence for one in expected], abs=1e-5)


def test_metadata_health_and_metrics_are_there(server: Server) -> None:
    server.predict(TEXTS)
    described = json.loads(server.ask("GET", "/v2/models/intent")[2])
    assert [tensor["name"] for tensor in described["inputs"]] == ["text"]
    assert [tensor["name"] for tensor in described["outputs"]] == [*(one.name for one in OUTPUTS), "embedding"]
    for path in ("/v2/health/live", "/v2/models/intent/ready", "/v1/models/intent"):
        assert server.ask("GET", path)[0] == 200
    metrics = server.ask("GET", "/metrics")[2].decode()
    for name in ("request_seconds", "batch_texts", "batch_seconds", "refused_texts_total", "waiting_texts"):
        assert f"chatflow_intent_{name}" in metrics


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/models/intent:predict", b"{", 400, "instances"),
        ("/v1/models/intent:predict", b'{"instances": [7]}', 400, "instances"),
        ("/v2/models/intent/infer", b'{"inputs": []}', 400, "send one, 'text'"),
        ("/v1/models/intent:predict", b'{"instances": ["' + b"x" * 5 * 2**20 + b'"]}', 413, "4194304 bytes"),
        ("/v1/models/other:predict", b'{"instances": ["x"]}', 404, "other"),
    ],
)
def test_what_cannot_be_served_is_refused_and_told_why(
    server: Server, path: str, body: bytes, status: int, said: str
) -> None:
    found, _, answer = server.ask("POST", path, body)
    assert found == status
    assert said in json.loads(answer)["error"]


def test_too_much_at_once_is_refused_in_time_and_the_rest_is_served(artefact: Path) -> None:
    with (
        serving(artefact, "--max_waiting_texts=40", "--max_batch_texts=8", "--max_wait_ms=500") as server,
        ThreadPoolExecutor(24) as pool,
    ):
        answers = list(pool.map(lambda _: server.predict(TEXTS * 5), range(72)))
        by_sdk = list(
            pool.map(lambda _: server.ask("POST", "/v2/models/intent/infer", **_binary(TEXTS * 5)), range(72))
        )
        codes = asyncio.run(_asked_by_grpc(server, TEXTS * 5, 72))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 429}
    refused = [answer for answer in answers if answer[0] == 429]
    assert all(int(headers["retry-after"]) >= 1 for _, headers, _ in refused)
    # Some find the queue full; on a slow machine others have waited in it for too long.
    assert all("too much at once: " in answer["error"] for _, _, answer in refused)
    assert any("texts wait" in answer["error"] for _, _, answer in refused)
    assert {status for status, _, _ in by_sdk} == {200, 429}
    assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in by_sdk if status == 429)
    assert codes == {StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED}


def _binary(texts: list[str]) -> dict[str, Any]:
    """A request that the fast path leaves to the SDK."""
    given = InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object))
    body, length = InferRequest("intent", [given]).to_rest()
    return {"body": body, "content_type": "application/octet-stream", "inference_header_content_length": str(length)}


async def _asked_by_grpc(server: Server, texts: list[str], times: int) -> set[StatusCode]:
    """The statuses of so many calls at once."""
    client = InferenceGRPCClient(f"127.0.0.1:{server.grpc_port}")

    async def one() -> StatusCode:
        try:
            await client.infer(InferRequest("intent", [InferInput("text", [len(texts)], "BYTES", texts)]))
        except AioRpcError as error:
            return error.code()
        return StatusCode.OK

    try:
        return set(await asyncio.gather(*(one() for _ in range(times))))
    finally:
        await client.close()


def test_nobody_takes_the_model_away_or_sends_more_than_is_read(server: Server, expected: list[Prediction]) -> None:
    status, _, answer = server.ask("POST", "/v2/repository/models/intent/unload")
    assert status == 400
    assert "not unloaded by request" in json.loads(answer)["error"]
    for more in ({"inference_header_content_length": "10"}, {"ce_id": "1", "ce_type": "x"}):
        status, _, answer = server.ask("POST", "/v2/models/intent/infer", b"x" * (5 * 2**20), **more)
        assert (status, "4194304 bytes" in json.loads(answer)["error"]) == (413, True)
    assert server.ask("GET", "/v2/models/intent/ready")[0] == 200
    assert server.predict(TEXTS)[2]["predictions"][0]["intent"] == expected[0].intent


def test_a_server_that_is_told_to_stop_answers_what_it_has_accepted(artefact: Path) -> None:
    with serving(artefact) as server, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.predict, TEXTS * 50) for _ in range(8)]
        metrics = ""
        while "chatflow_intent_batch_texts_count" not in metrics or " 0.0" in _line(metrics, "batch_texts_count"):
            metrics = server.ask("GET", "/metrics")[2].decode()
        server.process.send_signal(signal.SIGTERM)
        assert [one.result()[0] for one in asked] == [200] * 8
        assert server.process.wait(30) == 0


def _line(metrics: str, name: str) -> str:
    return next(line for line in metrics.splitlines() if line.startswith(f"chatflow_intent_{name}"))


def test_an_onnx_encoder_comes_with_the_artefact(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    train(EXAMPLES, load_encoder("onnx", encoder), tmp_path / "artefact")
    shutil.rmtree(encoder)
    with serving(tmp_path / "artefact") as server:
        status, _, answer = server.predict(["refund parcel", "parcel"], parameters={"embedding": True})
    assert status == 200
    vectors = [one["embedding"] for one in answer["predictions"]]
    assert vectors == [pytest.approx([0.6, 0.8]), pytest.approx([0, 1])]


@pytest.mark.parametrize("is_nested", [False, True], ids=["the folder", "a folder in it"])
def test_an_artefact_is_found_where_storage_puts_it(artefact: Path, tmp_path: Path, is_nested: bool) -> None:
    shutil.copytree(artefact, tmp_path / "models/v1" if is_nested else tmp_path / "models")
    with serving(tmp_path / "models", "--grpc_port=0") as server:
        assert server.predict(TEXTS)[0] == 200


def test_a_model_that_comes_into_force_takes_over_and_a_damaged_one_does_not(
    artefact: Path, other_artefact: Path, tmp_path: Path
) -> None:
    versions = {
        name: json.loads((path / "manifest.json").read_text())["version"]
        for name, path in (("one", artefact), ("other", other_artefact))
    }
    for path, version in ((artefact, versions["one"]), (other_artefact, versions["other"])):
        shutil.copytree(path, tmp_path / "intent" / version)
    damaged = tmp_path / "intent" / "damaged"
    shutil.copytree(other_artefact, damaged)
    (damaged / "weights.npz").write_bytes(b"x")

    def put_in_force(version: str) -> None:
        new = tmp_path / "current.json.new"
        new.write_text(json.dumps({"intent": version}))
        new.rename(tmp_path / "current.json")

    put_in_force(versions["one"])
    with serving(tmp_path, "--grpc_port=0") as server, ThreadPoolExecutor(4) as pool:
        assert server.predict(TEXTS)[2]["model_version"] == versions["one"]
        put_in_force("damaged")
        assert server.process.stderr is not None
        assert any(b"weights.npz is damaged" in line for line in server.process.stderr)
        assert server.predict(TEXTS)[2]["model_version"] == versions["one"]
        put_in_force(versions["other"])
        end = time.monotonic() + START_S
        seen = list[tuple[str, float]]()
        while not seen or seen[-1][0] != versions["other"]:
            for status, _, answer in pool.map(lambda _: server.predict(TEXTS), range(8)):
                assert status == 200
                seen.append((answer["model_version"], answer["predictions"][0]["confidence"]))
            assert time.monotonic() < end, "the other model is not in force"
    # An answer is that of the model which it names, to the rounding that differs with the batch it was in.
    one, other = ([found for named, found in seen if named == version] for version in versions.values())
    assert max(other) - min(other) < ROUNDING
    assert all(abs(found - one[0]) < ROUNDING < abs(found - other[0]) for found in one)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "weights.npz").write_bytes(b"x"), "weights.npz is damaged"),
        (lambda folder: (folder / "weights.npz").unlink(), "weights.npz is missing"),
        (shutil.rmtree, "holds no intent artefact"),
    ],
)
def test_a_model_that_cannot_be_used_ends_the_server_with_the_reason(
    artefact: Path, tmp_path: Path, harm: Any, said: str
) -> None:
    folder = tmp_path / "intent"
    shutil.copytree(artefact, folder)
    harm(folder)
    assert said in _last_words(folder)


def test_of_two_artefacts_none_is_waited_for(artefact: Path, tmp_path: Path) -> None:
    for version in ("one", "two"):
        shutil.copytree(artefact, tmp_path / version)
    assert "holds 2 intent artefacts and no current.json" in _last_words(tmp_path, "--wait_s=280")


def _last_words(folder: Path, *arguments: str) -> str:
    """What a server says that ends for want of a model."""
    ran = subprocess.run(
        [sys.executable, "-m", "chatflow_models.serving", f"--model_dir={folder}", "--host=127.0.0.1", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ},
        timeout=60,
    )
    assert ran.returncode == 1
    return ran.stderr
