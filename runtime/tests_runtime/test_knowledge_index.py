"""An index on disk and in memory: whole or not at all, exchanged under load, the same with faiss."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from chatflow_models.intent import NoEncoder, normalise
from chatflow_runtime.adapters.knowledge import (
    PROBE,
    Entry,
    Knowledge,
    KnowledgeIndex,
    KnowledgeRetriever,
    build_index,
)
from chatflow_runtime.errors import ArtefactInvalid
from chatflow_runtime.ports import Query
from msgspec.structs import replace
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DIMENSION = 32


class HashedEncoder:
    """Gives each text a random direction of its own, near that of texts with the same first word."""

    def encode(self, texts: Sequence[str]) -> Floats:
        rows = [self._direction(text.split()[0]) + 0.5 * self._direction(text) for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _direction(self, text: str) -> Floats:
        seed = int.from_bytes(text.encode()[:64], "big") % 2**63
        return np.random.default_rng(seed).standard_normal(DIMENSION, dtype=np.float32)


def entries(*titles: str) -> Knowledge:
    return Knowledge(
        tuple(
            Entry(
                id=f"e{number}", title=title, text=f"Answer {number}.", kind="pair", source="a.yaml", variants=(title,)
            )
            for number, title in enumerate(titles)
        )
    )


SMALL = entries("refund time", "delivery area", "invoice download")


def found(index: KnowledgeIndex, text: str) -> list[str]:
    return [passage.id for passage in index.search([Query(text)], 5)[0]]


@pytest.mark.parametrize("encoder", [None, HashedEncoder()], ids=["light", "vectors"])
def test_an_index_survives_the_disk(tmp_path: Path, encoder: HashedEncoder | None) -> None:
    built = build_index(SMALL, encoder, tmp_path)
    index = KnowledgeIndex.load(built.folder)
    assert (index.version, index.entries) == (built.version, SMALL.entries)
    assert built.folder == tmp_path / built.version
    assert (built.counts.entries, built.counts.variants, built.counts.vectors) == (3, 3, 6 if encoder else 0)
    assert index.dimension == (DIMENSION if encoder else None)
    assert (index.probe is None) == (encoder is None)
    if encoder is not None and index.probe is not None:
        assert index.probe == pytest.approx(encoder.encode([PROBE])[0])
    assert found(index, "my refund")[0] == "e0"


def test_the_probe_reads_the_same_to_every_encoder() -> None:
    # An intent server normalises what it is asked; the index's builder takes the probe as it is.
    assert normalise(PROBE) == PROBE


def test_the_version_depends_on_content_and_encoder_and_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    built = build_index(SMALL, None, tmp_path)
    written = {path.name: path.stat().st_mtime_ns for path in built.folder.iterdir()}
    assert build_index(SMALL, None, tmp_path) == built
    assert {path.name: path.stat().st_mtime_ns for path in built.folder.iterdir()} == written
    others = {build_index(SMALL, HashedEncoder(), tmp_path).version, build_index(entries("x"), None, tmp_path).version}
    assert len(others | {built.version}) == 3


def test_an_encoder_of_no_dimensions_means_words_alone(tmp_path: Path) -> None:
    built = build_index(SMALL, NoEncoder(), tmp_path)
    assert built == build_index(SMALL, None, tmp_path)
    assert KnowledgeIndex.load(built.folder).dimension is None


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    class Broken:
        def encode(self, texts: Sequence[str]) -> Floats:
            if len(texts) > 1:
                raise MemoryError
            return np.ones((1, DIMENSION), dtype=np.float32)

    with pytest.raises(MemoryError):
        build_index(SMALL, Broken(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["manifest.json", "entries.msgpack", "terms.msgpack", "postings.npz", "vectors.npy", "centre.npy"]
)
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_index_is_refused_by_name_and_built_anew(tmp_path: Path, name: str, damage: str) -> None:
    folder = build_index(SMALL, HashedEncoder(), tmp_path).folder
    path = folder / name
    content = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "changed":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case _:
            path.unlink()
    with pytest.raises(ArtefactInvalid, match="build the knowledge again") as caught:
        KnowledgeIndex.load(folder)
    assert str(folder) in str(caught.value)
    rebuilt = build_index(SMALL, HashedEncoder(), tmp_path)
    assert found(KnowledgeIndex.load(rebuilt.folder), "refund")[0] == "e0"
    assert [path.name for path in tmp_path.iterdir()] == [rebuilt.version]


def test_a_newer_schema_is_refused_with_both_numbers(tmp_path: Path) -> None:
    folder = build_index(SMALL, None, tmp_path).folder
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema": 3', '"schema": 4'))
    with pytest.raises(ArtefactInvalid, match="schema is 4, this release reads 3"):
        KnowledgeIndex.load(folder)


def test_what_matches_is_found_however_many_entries_a_likely_intent_has(tmp_path: Path) -> None:
    billing = tuple(replace(entry, intent="billing") for entry in entries(*(f"账单{n}" for n in range(12))).entries)
    login = replace(entries("reset it").entries[0], id="login", intent="login")
    index = KnowledgeIndex.load(build_index(Knowledge((*billing, login)), None, tmp_path).folder)
    found_ids = [passage.id for passage in index.search([Query("reset", (("billing", 0.9),))], 5)[0]]
    assert found_ids == ["login"]


def test_an_empty_knowledge_base_finds_nothing(tmp_path: Path) -> None:
    index = KnowledgeIndex.load(build_index(Knowledge(()), HashedEncoder(), tmp_path).folder)
    assert found(index, "anything") == []


async def test_searches_under_way_finish_on_the_index_they_began_with(tmp_path: Path) -> None:
    old = KnowledgeIndex.load(build_index(entries("refund time"), None, tmp_path).folder)
    new = KnowledgeIndex.load(build_index(entries("refund destination", "refund time"), None, tmp_path).folder)
    retriever = KnowledgeRetriever(old)
    before = [asyncio.ensure_future(retriever.search(Query("refund"), 5)) for _ in range(20)]
    await asyncio.sleep(0)  # The searches begin, and wait for the end of this tick.
    retriever.swap(new)
    after = [asyncio.ensure_future(retriever.search(Query("refund"), 5)) for _ in range(20)]
    assert {len(passages) for passages in await asyncio.gather(*before)} == {1}
    assert {len(passages) for passages in await asyncio.gather(*after)} == {2}
    assert retriever.revision == new.version


async def test_content_is_rebuilt_and_exchanged_under_constant_searches(tmp_path: Path) -> None:
    versions = [
        KnowledgeIndex.load(build_index(entries("refund", f"extra {n}"), None, tmp_path).folder) for n in range(5)
    ]
    retriever = KnowledgeRetriever(versions[0])
    is_over = asyncio.Event()
    answered: dict[str, int] = dict.fromkeys((index.version for index in versions), 0)

    async def customer() -> None:
        while not is_over.is_set():
            passages = await retriever.search(Query("refund"), 3)
            assert passages[0].id == "e0"
            answered[retriever.revision] += 1

    async def exchange() -> None:
        for index in versions * 4:
            retriever.swap(index)
            await asyncio.gather(*(retriever.search(Query("extra"), 3) for _ in range(8)))
        is_over.set()

    await asyncio.gather(exchange(), *(customer() for _ in range(16)))
    assert min(answered.values()) > 16


async def test_a_cancelled_search_does_not_disturb_those_beside_it(tmp_path: Path) -> None:
    retriever = KnowledgeRetriever(KnowledgeIndex.load(build_index(SMALL, None, tmp_path).folder))
    first, second = (asyncio.ensure_future(retriever.search(Query("refund"), 1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert [passage.id for passage in await second] == ["e0"]
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_embedding_of_another_length_is_left_aside_for_the_words(tmp_path: Path) -> None:
    retriever = KnowledgeRetriever(KnowledgeIndex.load(build_index(SMALL, HashedEncoder(), tmp_path).folder))
    wrong = np.ones(DIMENSION + 1, dtype=np.float32)
    right = HashedEncoder().encode(["delivery area"])[0]
    refund, delivery = await asyncio.gather(
        retriever.search(Query("refund", embedding=wrong), 1), retriever.search(Query("delivery", embedding=right), 1)
    )
    assert (refund[0].id, delivery[0].id) == ("e0", "e1")


TOPICS = 20
MANY = entries(*(f"topic{number % TOPICS} question{number}" for number in range(1500)), "zebra")


@pytest.fixture(scope="module")
def exact_and_approximate(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnowledgeIndex, KnowledgeIndex]:
    folder = tmp_path_factory.mktemp("many")
    exact = build_index(MANY, HashedEncoder(), folder)
    approximate = build_index(MANY, HashedEncoder(), folder, exact_rows=1000)
    assert not (exact.folder / "vectors.faiss").exists()
    assert (approximate.folder / "vectors.faiss").exists()
    return KnowledgeIndex.load(exact.folder), KnowledgeIndex.load(approximate.folder)


def test_faiss_finds_what_exact_search_finds_with_the_same_scores(
    exact_and_approximate: tuple[KnowledgeIndex, KnowledgeIndex],
) -> None:
    exact, approximate = exact_and_approximate
    # The words are unknown, so the vectors alone decide.
    embeddings = HashedEncoder().encode([f"topic{number % TOPICS} other{number}" for number in range(100)])
    queries = [Query("ζζζ", embedding=embedding) for embedding in embeddings]
    pairs = zip(exact.search(queries, 5), approximate.search(queries, 5), strict=True)
    hits = total = 0
    for wanted, given in pairs:
        scores = {passage.id: passage.score for passage in wanted}
        total += len(wanted)
        for passage in given:
            if passage.id in scores:
                hits += 1
                assert passage.score == pytest.approx(scores[passage.id], abs=0.005)
    assert total == 500
    assert hits / total >= 0.95


def test_words_that_vectors_miss_are_still_found_beside_faiss(
    exact_and_approximate: tuple[KnowledgeIndex, KnowledgeIndex],
) -> None:
    query = Query("zebra", embedding=HashedEncoder().encode(["nothing alike"])[0])
    exact, approximate = ({p.id: p.score for p in index.search([query], 20)[0]} for index in exact_and_approximate)
    assert approximate["e1500"] == pytest.approx(exact["e1500"], abs=0.005)


async def test_a_large_index_answers_through_the_same_retriever_off_the_event_loop(tmp_path: Path) -> None:
    many = entries(*(f"topic{number % TOPICS} question{number}" for number in range(6000)))
    index = KnowledgeIndex.load(build_index(many, None, tmp_path).folder)
    assert index.is_heavy
    passages = await asyncio.gather(*(KnowledgeRetriever(index).search(Query(f"question{n}"), 1) for n in (7, 5555)))
    assert [found[0].id for found in passages] == ["e7", "e5555"]


def test_where_faiss_is_missing_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ArtefactInvalid, match=r"above 100,000 search needs faiss: pip install 'chatflow\[faiss\]'"):
        build_index(SMALL, HashedEncoder(), tmp_path, exact_rows=2)
    assert list(tmp_path.iterdir()) == []
