"""`chatflow render`: what the operator would apply, printed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml
from chatflow_cli.main import main
from click.testing import CliRunner

EXAMPLES = Path(__file__).parents[2] / "examples"


def rendered(*arguments: str) -> list[dict[str, object]]:
    """The printed objects."""
    result = CliRunner().invoke(main, ["render", *arguments])
    assert result.exit_code == 0, result.output
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def test_the_objects_of_an_example_are_printed() -> None:
    kinds = Counter(one["kind"] for one in rendered(str(EXAMPLES / "shop-support"), "--without", "podmonitor"))
    assert kinds["Deployment"] == 2
    assert kinds["StatefulSet"] == 1
    assert kinds["Job"] == 1
    assert kinds["PrometheusRule"] == 1
    assert "PodMonitor" not in kinds


def test_content_beside_the_manifest_decides_over_the_build(tmp_path: Path) -> None:
    text = (
        "apiVersion: chatflow.dev/v1alpha1\nkind: ChatFlow\nmetadata: {name: shop}\n"
        "spec: {knowledge: {sources: [{configMap: {name: faq}}]}}\n---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: faq}\ndata: {faq.md: ANSWER}\n"
    )
    names = set()
    for answer in ("one", "two"):
        (tmp_path / "flow.yaml").write_text(text.replace("ANSWER", answer))
        objects = rendered(str(tmp_path / "flow.yaml"), "--namespace", "sales", "--uid", "1234")
        for one in objects:
            metadata = one["metadata"]
            assert isinstance(metadata, dict)
            assert metadata["namespace"] == "sales"
            assert all(owner["uid"] == "1234" for owner in metadata.get("ownerReferences", ()))
            if one["kind"] == "Job":
                names.add(metadata["name"])
    assert len(names) == 2


def test_no_secret_stands_in_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text(
        "apiVersion: chatflow.dev/v1alpha1\nkind: ChatFlow\nmetadata: {name: shop}\n"
        "spec: {models: {llm: {openAI: {baseURL: 'http://m/v1', model: m, apiKeySecretRef: {name: k, key: k}}}}}\n---\n"
        "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\nstringData: {k: very-secret-key}\n"
    )
    result = CliRunner().invoke(main, ["render", str(tmp_path / "flow.yaml")])
    assert result.exit_code == 0, result.output
    assert "very-secret-key" not in result.output
