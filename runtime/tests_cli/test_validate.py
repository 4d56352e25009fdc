"""`chatflow validate`, run as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chatflow_cli.main import main
from click.testing import CliRunner, Result

ROOT = Path(__file__).resolve().parents[2]
HEAD = "apiVersion: chatflow.dev/v1alpha1\nkind: ChatFlow\nmetadata: {name: shop}\n"


def invoke(*arguments: str, stdin: str = "") -> Result:
    """The command in this process, which saves the start of an interpreter."""
    result = CliRunner().invoke(main, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def chatflow(*arguments: str, stdin: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a program."""
    program = "from chatflow_cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "chatflow.yaml"


@pytest.mark.parametrize("name", ["shop-support", "saas-support"])
def test_the_examples_are_valid(name: str) -> None:
    result = chatflow("validate", f"examples/{name}", f"examples/{name}/chatflow.yaml", folder=ROOT)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"examples/{name}: ok\nexamples/{name}/chatflow.yaml: ok\n"


def test_several_files_are_checked_and_all_problems_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"good.yaml": HEAD, "bad.yaml": HEAD + "spec: {locale: fr, state: {ttl: 1s}}\n"})
    result = invoke("validate", "good.yaml", "bad.yaml", "gone.yaml")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "good.yaml: ok"
    assert [line.split(": ")[:2] for line in lines[1:]] == [
        ["bad.yaml:4", "spec.locale"],
        ["bad.yaml:4", "spec.state.ttl"],
        ["gone.yaml", "no such file; correct the path"],
    ]


def test_what_the_cluster_alone_would_refuse_is_told_as_well(tmp_path: Path) -> None:
    slot = '- {name: order, ask: "Which?", pattern: "[0-9]+"}\n'
    text = f"{HEAD}spec:\n  dialogue:\n    title: 7\n    slots:\n      {slot}      {slot}"
    path = write(tmp_path, {"chatflow.yaml": text})
    result = invoke("validate", str(path))
    assert result.exit_code == 1
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{path}:6: spec.dialogue.title: 7: ")
    assert second == (
        f"{path}:9: spec.dialogue.slots[1]: stands twice with the same name;"
        " the CustomResourceDefinition refuses it; see docs/reference/manifest.md"
    )


def test_a_mistake_that_both_know_is_told_once() -> None:
    result = invoke("validate", "-", stdin=HEAD + "spec: {gateway: {replicas: {min: 21}}}\n")
    assert result.stdout.startswith("<stdin>:4: spec.gateway.replicas.min: 21 is above max 20")
    assert len(result.stdout.splitlines()) == 1


def test_standard_input_is_read_for_a_dash() -> None:
    assert chatflow("validate", "-", stdin=HEAD).stdout == "-: ok\n"
    result = chatflow("validate", "-", stdin="kind: [")
    assert result.returncode == 1
    assert result.stdout.startswith("<stdin>:1: no valid YAML")


SOURCES = """\
spec:
  knowledge:
    sources: [{configMap: {name: faq, keys: [faq.yaml, gone.md]}}]
  dialogue:
    actions:
      - {name: track, intent: tracking, http: {url: "http://orders/x"}, reply: ok}
  models: {intent: {exampleSources: [{configMap: {name: intents}}]}}
  moderation: {wordLists: [{name: wrods, key: words.txt}]}
"""


def test_references_into_the_kustomization_are_checked(tmp_path: Path) -> None:
    generators = (
        "configMapGenerator:\n"
        "  - {name: faq, files: [faq.yaml]}\n"
        "  - {name: intents, files: [intents.yaml]}\n"
        "  - {name: words, files: [words.txt]}\n"
    )
    path = write(
        tmp_path,
        {
            "chatflow.yaml": HEAD + SOURCES,
            "kustomization.yaml": generators,
            "faq.yaml": "- {id: a, question: Where is it?, answer: There., intent: place}\n",
            "intents.yaml": "order: [where is my order]\nplace: text\n",
        },
    )
    result = invoke("validate", str(path))
    assert result.exit_code == 1
    text = result.stdout
    assert "words.txt does not exist; create it" in text
    assert (
        f"{path}:6: spec.knowledge.sources[0].configMap: ConfigMap faq has no key gone.md; its keys: faq.yaml" in text
    )
    assert f"{path}:11: spec.moderation.wordLists[0]: ConfigMap wrods is not found" in text
    assert "intents/intents.yaml:2: place must be a list of texts" in text


def test_an_action_needs_an_intent_that_something_teaches() -> None:
    manifest = HEAD + SOURCES.replace(", keys: [faq.yaml, gone.md]", "").replace("wrods", "words")
    data = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata:\n  %s\n"
    manifest += data % ("faq", 'faq.yaml: "- {id: a, question: Where is it?, answer: There., intent: place}"')
    manifest += data % ("intents", 'intents.yaml: "order: [where is my order]"')
    manifest += data % ("words", 'words.txt: "bad"')
    result = invoke("validate", "-", stdin=manifest)
    assert result.stdout == (
        "<stdin>:9: spec.dialogue.actions[0].intent: no example teaches the intent 'tracking', so the action never"
        " starts; add examples of it, or use one of: order, place\n"
    )
    assert result.exit_code == 1


def test_a_handoff_s_intent_needs_examples_as_well() -> None:
    manifest = f"""{HEAD}spec:
  dialogue:
    handoff:
      webhook: {{url: "http://desk/hook", secretRef: {{name: desk, key: hook}}}}
      agentSecretRef: {{name: desk, key: agents}}
      intent: complaint
  models: {{intent: {{examples: {{order: [where is my order]}}}}}}
"""
    result = invoke("validate", "-", stdin=manifest)
    assert "spec.dialogue.handoff.intent: no example teaches the intent 'complaint'" in result.stdout
    assert result.exit_code == 1


def test_what_may_lie_on_the_cluster_is_a_remark_and_no_problem(tmp_path: Path) -> None:
    result = invoke("validate", str(write(tmp_path, {"chatflow.yaml": HEAD + SOURCES})))
    assert result.exit_code == 0
    assert result.stdout.endswith(": ok\n")
    assert "ConfigMap faq is not found; not checked" in result.stderr


def test_files_of_a_volume_are_checked_when_its_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = HEAD + "spec: {knowledge: {sources: [{persistentVolumeClaim: {claimName: docs, path: faq}}]}}\n"
    write(tmp_path, {"chatflow.yaml": manifest, "volume/faq/bad.yaml": "- {question: only a question}\n"})
    remark = invoke("validate", "chatflow.yaml")
    assert (remark.exit_code, "docs is not on this machine; not checked" in remark.stderr) == (0, True)
    result = invoke("validate", "chatflow.yaml", "--volume", "docs=volume")
    assert result.exit_code == 1
    assert "docs/faq/bad.yaml" in result.stdout


def test_a_folder_without_a_flow_and_one_with_two_say_so(tmp_path: Path) -> None:
    assert "no file with a ChatFlow" in invoke("validate", str(tmp_path)).stdout
    write(tmp_path, {"a.yaml": HEAD, "b.yaml": HEAD})
    assert "several ChatFlows (a.yaml, b.yaml); name one file" in invoke("validate", str(tmp_path)).stdout


def test_validation_needs_no_library_of_the_runtime(tmp_path: Path) -> None:
    path = write(tmp_path, {"chatflow.yaml": HEAD})
    program = (
        "import sys; from chatflow_cli.main import main\n"
        "try: main(['validate', sys.argv[1]])\n"
        "except SystemExit: print(sorted({'numpy', 'redis', 'aiohttp', 'fastapi', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
