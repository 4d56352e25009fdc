"""Reading a manifest: each mistake is named with its path, line, value and remedy."""

from __future__ import annotations

import textwrap

import pytest
from chatflow_api.v1alpha1 import ChatFlow
from chatflow_api.validation import Manifest, ManifestInvalid, Problem, read_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

HEAD = "apiVersion: chatflow.dev/v1alpha1\nkind: ChatFlow\nmetadata: {name: shop}\n"


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(text, "shop.yaml")
    return caught.value.problems


def read(text: str) -> Manifest:
    return read_manifest(HEAD + textwrap.dedent(text), "shop.yaml")


ACTION = "{name: a, intent: order, http: {url: 'http://shop/x'}, reply: ok"

MISTAKES = {
    "wrong apiVersion": (
        "apiVersion: chatflow.dev/v1\nkind: ChatFlow\nmetadata: {name: shop}\n",
        ("apiVersion", 1, "chatflow.dev/v1", "write apiVersion: chatflow.dev/v1alpha1"),
    ),
    "wrong kind": (
        "apiVersion: chatflow.dev/v1alpha1\nkind: Chatflow\nmetadata: {name: shop}\n",
        ("kind", 2, "Chatflow", "write kind: ChatFlow"),
    ),
    "no kind": (
        "apiVersion: chatflow.dev/v1alpha1\nmetadata: {name: shop}\n",
        ("kind", 1, None, "write kind: ChatFlow"),
    ),
    "another kind alone": ("apiVersion: v1\nkind: Secret\n", ("", None, None, "kind: ChatFlow")),
    "two flows": (f"{HEAD}---\n{HEAD}", ("", 5, None, "keep one a file")),
    "no metadata": ("apiVersion: chatflow.dev/v1alpha1\nkind: ChatFlow\n", ("metadata", 1, None, "add metadata")),
    "bad name": (HEAD.replace("shop", "Shop"), ("metadata.name", 3, "Shop", "lower-case letters")),
    "no YAML": (HEAD + "spec:\n  a: b: c\n", ("", 5, None, "in quotes")),
    "open quote": (HEAD + 'spec: {locale: "en}\n', ("", 4, None, "close the quote")),
    "tab": (HEAD + "spec:\n\tlocale: en\n", ("", 5, None, "indent with spaces")),
    "control character": (HEAD + "spec: {locale: '\x07'}\n", ("", 4, None, "remove it")),
    "key twice": (HEAD + "spec:\n  locale: en\n  locale: en\n", ("spec.locale", 6, None, "keep one")),
    "key is no text": (
        HEAD + "spec:\n  models: {intent: {examples: {yes: [a]}}}\n",
        ("spec.models.intent.examples", 5, None, 'put it in quotes: "yes"'),
    ),
    "alias of itself": (HEAD + "spec: &a\n  dialogue: *a\n", ("spec.dialogue", 4, None, "remove the alias")),
    "unknown field, close name": (
        HEAD + "spec:\n  knowlege: {}\n",
        ("spec.knowlege", 5, None, "did you mean knowledge?"),
    ),
    "unknown field, snake case": (
        HEAD + "spec:\n  state:\n    closing_notice: 30s\n",
        ("spec.state.closing_notice", 6, None, "did you mean closingNotice?"),
    ),
    "unknown field, other case": (
        HEAD + "spec: {models: {llm: {openAi: {}, openAI: {baseURL: 'http://x/v1', model: m}}}}\n",
        ("spec.models.llm.openAi", 4, None, "did you mean openAI?"),
    ),
    "unknown field, wrong level": (
        HEAD + "spec:\n  topK: 5\n",
        ("spec.topK", 5, None, "did you mean spec.knowledge.topK?"),
    ),
    "unknown field at the top": (HEAD + "specs: {}\n", ("specs", 4, None, "did you mean spec?")),
    "unknown field, nothing close": (HEAD + "spec: {zzz: 1}\n", ("spec.zzz", 4, None, "known here: locale")),
    "missing field": (
        HEAD + "spec:\n  dialogue:\n    slots:\n      - name: order\n        ask: Which?\n",
        ("spec.dialogue.slots[0].pattern", 7, None, "add pattern: regular expression"),
    ),
    "number too high": (
        HEAD + "spec:\n  models:\n    intent:\n      confidence: 1.5\n",
        ("spec.models.intent.confidence", 7, "1.5", "allowed: 0.5 to 0.999"),
    ),
    "number too low": (HEAD + "spec: {knowledge: {topK: 0}}\n", ("spec.knowledge.topK", 4, "0", "allowed: 1 to 20")),
    "text for a number": (
        HEAD + 'spec: {gateway: {maxTextLength: "12"}}\n',
        ("spec.gateway.maxTextLength", 4, "12", "a number without quotes"),
    ),
    "time read as a number": (
        HEAD + "spec: {dialogue: {greeting: 12:30}}\n",
        ("spec.dialogue.greeting", 4, "12:30", "put it in quotes"),
    ),
    "list for a mapping": (HEAD + "spec: {moderation: [a]}\n", ("spec.moderation", 4, None, "wordLists")),
    "text for a list": (
        HEAD + "spec: {models: {intent: {examples: {refund: money back}}}}\n",
        ("spec.models.intent.examples.refund", 4, "money back", "after '- '"),
    ),
    "no duration": (HEAD + "spec: {state: {ttl: 10 minutes}}\n", ("spec.state.ttl", 4, "10 minutes", "10m")),
    "duration out of bounds": (
        HEAD + "spec: {state: {ttl: 5s}}\n",
        ("spec.state.ttl", 4, "5s", "allowed: 10s to 168h"),
    ),
    "notice longer than the conversation": (
        HEAD + "spec:\n  state:\n    ttl: 20s\n    closingNotice: 30s\n",
        ("spec.state.closingNotice", 7, None, "raise ttl"),
    ),
    "none of the values": (HEAD + "spec:\n  locale: zh-cn\n", ("spec.locale", 5, "zh-cn", "did you mean zh-CN?")),
    "bad intent name": (
        HEAD + "spec: {models: {intent: {examples: {Order Status: [a]}}}}\n",
        ("spec.models.intent.examples.Order Status", 4, None, "lower-case letters"),
    ),
    "no source": (
        HEAD + "spec: {knowledge: {sources: [{}]}}\n",
        ("spec.knowledge.sources[0]", 4, None, "set exactly one"),
    ),
    "bad slot pattern": (
        HEAD + "spec:\n  dialogue:\n    slots:\n      - name: a\n        ask: b\n        pattern: '(['\n",
        ("spec.dialogue.slots[0].pattern", 9, None, "escape the sign"),
    ),
    "slot pattern that matches nothing": (
        HEAD + "spec: {dialogue: {slots: [{name: a, ask: b, pattern: '[0-9]*'}]}}\n",
        ("spec.dialogue.slots[0].pattern", 4, None, "one character at least"),
    ),
    "action without its slot": (
        HEAD
        + "spec:\n  dialogue:\n    slots: [{name: order, ask: b, pattern: x}]\n    actions:\n"
        + f"      - {ACTION}, slots: [ordr]}}\n",
        ("spec.dialogue.actions[0].slots[0]", 8, None, "use one of: order"),
    ),
    "action with an unknown placeholder": (
        HEAD + "spec: {dialogue: {actions: [" + ACTION.replace("/x", "/{id}") + "}]}}\n",
        ("spec.dialogue.actions[0].http.url", 4, None, "add it to slots"),
    ),
    "reply with an unknown placeholder": (
        HEAD + "spec: {dialogue: {actions: [" + ACTION.replace("reply: ok", "reply: 'ok {response.x} {id}'") + "}]}}\n",
        ("spec.dialogue.actions[0].reply", 4, None, "the action's slots are none"),
    ),
    "answer in a text for when there is none": (
        HEAD + "spec: {dialogue: {actions: [" + ACTION + ", notFound: 'no {response.x}'}]}}\n",
        ("spec.dialogue.actions[0].notFound", 4, None, "the action's slots are none"),
    ),
    "action on a host that is not allowed": (
        HEAD + f"spec: {{dialogue: {{allowedHosts: [other.example.com], actions: [{ACTION}}}]}}}}\n",
        ("spec.dialogue.actions[0].http.url", 4, None, "add it there"),
    ),
    "two actions of one intent": (
        HEAD + f"spec: {{dialogue: {{actions: [{ACTION}}}, {ACTION.replace('name: a', 'name: b')}}}]}}}}\n",
        ("spec.dialogue.actions[1].intent", 4, None, "each may stand once"),
    ),
    "slot in the host of a URL": (
        HEAD + "spec: {dialogue: {actions: [" + ACTION.replace("//shop/", "//{shop}/") + "}]}}\n",
        ("spec.dialogue.actions[0].http.url", 4, "http://{shop}/x", "a host without {slot}"),
    ),
    "backup of nothing": (
        HEAD + "spec: {models: {backup: {openAI: {baseURL: 'http://x/v1', model: m}}}}\n",
        ("spec.models.backup", 4, None, "name the first model as llm"),
    ),
    "answer longer than the context": (
        HEAD + "spec: {models: {llm: {maxTokens: 4096, openAI: {baseURL: 'http://x/v1', model: m}}}}\n",
        ("spec.models.llm.maxTokens", 4, None, "raise contextTokens"),
    ),
    "way out of the volume": (
        HEAD + "spec: {knowledge: {sources: [{persistentVolumeClaim: {claimName: docs, path: a/../../b}}]}}\n",
        ("spec.knowledge.sources[0].persistentVolumeClaim.path", 4, None, "without '..'"),
    ),
}


@pytest.mark.parametrize(("text", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_path_line_value_and_remedy(
    text: str, expected: tuple[str, int | None, str | None, str]
) -> None:
    path, line, value, remedy = expected
    (problem,) = problems(text)
    assert (problem.path, problem.line, problem.value) == (path, line, value)
    assert remedy in problem.remedy
    message = str(problem)
    assert message.startswith("shop.yaml:" if line is None else f"shop.yaml:{line}:")
    assert all(part in message for part in (path, value or "", problem.what, problem.remedy))
    assert "\n" not in message


def test_all_problems_are_told_at_once_in_order_of_their_lines() -> None:
    text = HEAD + "spec:\n  locale: fr\n  state: {ttl: 1s}\n  knowledge: {topk: 3}\n"
    found = problems(text)
    assert [(problem.path, problem.line) for problem in found] == [
        ("spec.locale", 5),
        ("spec.state.ttl", 6),
        ("spec.knowledge.topk", 7),
    ]
    with pytest.raises(ManifestInvalid, match=r"(?s)shop\.yaml:5: .*\nshop\.yaml:6: .*\nshop\.yaml:7: "):
        read_manifest(text, "shop.yaml")


def test_broken_rules_of_several_actions_each_have_their_line() -> None:
    text = HEAD + (
        "spec:\n  dialogue:\n    actions:\n"
        f"      - {ACTION.replace('/x', '/{id}')}}}\n"
        f"      - {ACTION}, slots: [order]}}\n"
    )
    found = problems(text)
    assert {(problem.path, problem.line) for problem in found} == {
        ("spec.dialogue.actions[0].http.url", 7),
        ("spec.dialogue.actions[1].slots[0]", 8),
        ("spec.dialogue.actions[1].name", 8),
        ("spec.dialogue.actions[1].intent", 8),
    }


def test_the_smallest_manifest_is_the_flow_with_every_default() -> None:
    manifest = read("")
    assert manifest.flow == ChatFlow.model_validate(
        {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "shop"}}
    )


def test_other_documents_of_the_file_are_kept() -> None:
    manifest = read("---\nkind: ConfigMap\nmetadata: {name: words}\n---\n\n---\nkind: Secret\n")
    assert [document["kind"] for document in manifest.documents] == ["ConfigMap", "Secret"]


def test_lines_count_from_the_start_of_the_file_in_a_later_document() -> None:
    (problem,) = problems("kind: ConfigMap\napiVersion: v1\n---\n" + HEAD + "spec: {locale: fr}\n")
    assert problem.line == 7


def test_anchors_and_merge_keys_work_as_in_kubectl() -> None:
    manifest = read(
        """\
        spec:
          models:
            llm: &first
              openAI: {baseURL: "http://one/v1", model: m}
              temperature: 0.5
            backup:
              <<: *first
              temperature: 1.0
        """
    )
    models = manifest.flow.spec.models
    assert models.llm is not None
    assert models.backup is not None
    assert (models.llm.temperature, models.backup.temperature) == (0.5, 1.0)
    assert models.backup.open_ai == models.llm.open_ai


def test_aliases_that_multiply_are_refused_before_they_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (problem,) = problems(HEAD + "\n".join(lines))
    assert "aliases make more than" in problem.what


def test_a_date_stays_a_text_as_it_does_in_kubernetes() -> None:
    assert read("spec: {dialogue: {greeting: 2026-11-22}}").flow.spec.dialogue.greeting == "2026-11-22"


def test_overrides_take_the_place_of_fields_and_are_checked_like_them() -> None:
    text = HEAD + "spec: {models: {intent: {confidence: 0.9}}}"
    overrides = {"models.intent.confidence": "0.8", "spec.dialogue.title": "Help", "state.ttl": "60s"}
    spec = read_manifest(text, "shop.yaml", overrides).flow.spec
    assert (spec.models.intent.confidence, spec.dialogue.title, spec.state.ttl) == (0.8, "Help", "60s")
    with pytest.raises(ManifestInvalid, match=r"spec\.models\.intent\.confidence.*allowed"):
        read_manifest(text, "shop.yaml", {"models.intent.confidence": "7"})


def test_a_later_check_can_name_the_line_of_a_field() -> None:
    manifest = read("spec:\n  knowledge:\n    sources:\n      - configMap: {name: faq}\n")
    path = ("spec", "knowledge", "sources", 0, "configMap")
    assert str(manifest.problem(path, "it is not there", "add it")) == (
        "shop.yaml:7: spec.knowledge.sources[0].configMap: it is not there; add it"
    )


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab:-{}[]'\"#&*!|>%@` \n\t\x00é退1"), max_size=60))
def test_any_text_is_read_or_refused_with_problems(text: str) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(text, "any.yaml")
    assert caught.value.problems
    assert all(problem.what and problem.remedy for problem in caught.value.problems)
