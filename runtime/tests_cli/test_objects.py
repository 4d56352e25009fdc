"""ConfigMaps and Secrets from the files beside a manifest, as `kubectl apply -k` would make them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from chatflow_cli.local.objects import Objects, lay_out, read_objects

KUSTOMIZATION = """\
resources: [chatflow.yaml, extra.yaml, inner, "https://example.com/remote.yaml"]
configMapGenerator:
  - name: faq
    files: [faq.yaml, guide=docs/guide.md, logo.bin]
    literals: [colour=blue, quoted="a b"]
secretGenerator:
  - name: keys
    envs: [keys.env]
    files: [token]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "chatflow.yaml": "kind: ConfigMap\nmetadata: {name: not-read-twice}\ndata: {a: b}\n",
        "kustomization.yaml": KUSTOMIZATION,
        "faq.yaml": "- question: 退款多久到账？\n",
        "docs/guide.md": "# Guide\n",
        "logo.bin": "placeholder",
        "keys.env": "# comment\n\nUSER=me\nPASSWORD=a=b\n",
        "token": "secret-token\n",
        "extra.yaml": (
            "kind: Secret\nmetadata: {name: llm}\ndata: {key: c2VjcmV0}\nstringData: {url: redis://host}\n"
            "---\nkind: Deployment\nmetadata: {name: ignored}\n"
        ),
        "inner/kustomization.yaml": "configMapGenerator:\n  - {name: words, literals: [words.txt=bad]}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "logo.bin").write_bytes(bytes(range(256)))
    return tmp_path


def read(folder: Path) -> Objects:
    return read_objects([], folder / "chatflow.yaml")


def test_generators_resources_and_inner_folders_are_read(folder: Path) -> None:
    objects = read(folder)
    assert objects.problems == []
    assert set(objects.configmaps) == {"faq", "words"}
    assert objects.configmaps["faq"] == {
        "faq.yaml": "- question: 退款多久到账？\n".encode(),
        "guide": b"# Guide\n",
        "logo.bin": bytes(range(256)),
        "colour": b"blue",
        "quoted": b"a b",
    }
    assert objects.configmaps["words"] == {"words.txt": b"bad"}
    assert objects.secrets == {
        "llm": {"key": b"secret", "url": b"redis://host"},
        "keys": {"USER": b"me", "PASSWORD": b"a=b", "token": b"secret-token\n"},
    }


def test_documents_of_the_manifest_count_without_any_kustomization() -> None:
    documents = [
        {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}, "binaryData": {"b": "AAH/"}},
        {"kind": "Service", "metadata": {"name": "a"}},
    ]
    objects = read_objects(documents, None)
    assert objects.configmaps == {"a": {"k": b"v", "b": b"\x00\x01\xff"}}
    assert objects.problems == []


def test_every_file_that_was_read_is_watched(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in read(folder).files}
    assert names == {
        *("kustomization.yaml", "extra.yaml", "inner/kustomization.yaml"),
        *("faq.yaml", "docs/guide.md", "logo.bin", "keys.env", "token"),
    }


PROBLEMS = {
    "missing file": ("configMapGenerator: [{name: a, files: [gone.yaml]}]", "gone.yaml does not exist"),
    "missing resource": ("resources: [gone.yaml]", "resource gone.yaml does not exist"),
    "no YAML": ("resources: [", "kustomization.yaml:"),
    "same name twice": (
        "configMapGenerator: [{name: a, literals: [x=1]}, {name: a, literals: [x=2]}]",
        "a is defined a second time",
    ),
    "name that leaves the folder": ("configMapGenerator: [{name: .., literals: [x=1]}]", "is no name for an object"),
    "key that leaves the folder": ("configMapGenerator: [{name: a, literals: [../x=1]}]", "is no key"),
}


@pytest.mark.parametrize(("text", "expected"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_problem_is_one_line_with_its_file(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "kustomization.yaml").write_text(text)
    (problem,) = read_objects([], tmp_path / "chatflow.yaml").problems
    assert expected in problem
    assert "kustomization.yaml" in problem
    assert "\n" not in problem


def test_base64_that_is_none_is_a_problem() -> None:
    documents = [{"kind": "Secret", "metadata": {"name": "a"}, "data": {"key": "not base64!"}}]
    (problem,) = read_objects(documents, None).problems
    assert "the value of key is no base64" in problem


def test_laying_out_follows_changes_and_tells_them(tmp_path: Path) -> None:
    root = tmp_path / "secrets"
    first = {"llm": {"key": b"one"}, "gone": {"key": b"x"}}
    assert lay_out(first, root, is_private=True) == {"llm/key", "gone/key"}
    assert lay_out(first, root, is_private=True) == set()
    assert lay_out({"llm": {"key": b"two"}}, root, is_private=True) == {"llm/key", "gone/key"}
    assert [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()] == ["llm/key"]
    assert (root / "llm" / "key").read_bytes() == b"two"
    assert stat.S_IMODE((root / "llm" / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
