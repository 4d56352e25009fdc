"""Files to knowledge: every format through real bytes, the messages of broken ones, and ids that stay."""

from __future__ import annotations

import zlib

import pytest
from chatflow_runtime.adapters.knowledge import Entry, Knowledge, SourceFile, SourcesInvalid, read_files
from chatflow_runtime.adapters.knowledge.documents import CHUNK_LENGTH
from chatflow_runtime.adapters.knowledge.entries import TrainingExample
from hypothesis import given, settings
from hypothesis import strategies as st

YAML_PAIRS = """
- id: refund-time
  intent: refund
  topic: 退款
  question: 退款多久能到账？
  similar: [退款几天到, 钱什么时候退回来]
  answer: |
    仓库验收后 24 小时内发起退款。
    储蓄卡 1 至 3 个工作日到账。
  url: https://shop.example.com/help/refund-time
- question: 能开发票吗？
  answer: 可以，在订单详情里申请。
"""


def read(path: str, content: str | bytes) -> Knowledge:
    return read_files([SourceFile(path, content.encode() if isinstance(content, str) else content)])


def problems(path: str, content: str | bytes) -> tuple[str, ...]:
    with pytest.raises(SourcesInvalid) as caught:
        read(path, content)
    return caught.value.problems


def pdf(*pages: str) -> bytes:
    """A PDF with one line of Helvetica on each page, written by hand after ISO 32000-1, 7.5."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = zlib.compress(f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode())
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
            + f" /Contents {5 + 2 * number} 0 R >>".encode()
        )
        objects.append(f"<< /Length {len(stream)} /Filter /FlateDecode >>\nstream\n".encode() + stream + b"\nendstream")
    file = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(file))
        file += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    tail = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
    return file + f"{tail}startxref\n{len(file)}\n%%EOF\n".encode()


def test_a_pair_keeps_its_fields_and_its_questions_become_training_examples() -> None:
    knowledge = read("refund.yaml", YAML_PAIRS)
    first, second = knowledge.entries
    assert first == Entry(
        id="refund-time",
        title="退款多久能到账？",
        text="仓库验收后 24 小时内发起退款。\n储蓄卡 1 至 3 个工作日到账。",
        kind="pair",
        source="refund.yaml",
        variants=("退款多久能到账？", "退款几天到", "钱什么时候退回来"),
        url="https://shop.example.com/help/refund-time",
        intent="refund",
        topic="退款",
    )
    assert knowledge.examples == tuple(TrainingExample(text, "refund", "refund-time") for text in first.variants)
    assert second.id == read("other.yml", "- question: 能开发票吗？\n  answer: 好").entries[0].id


@pytest.mark.parametrize(
    ("path", "content"),
    [
        pytest.param(
            "a.jsonl",
            '{"id": "a", "question": "How, exactly?", "similar": ["In what way?", "By which means?"],'
            ' "answer": "So."}\n\n',
            id="jsonl",
        ),
        pytest.param(
            "a.csv",
            '\ufeffid,question,similar,answer,url\r\na,"How, exactly?",In what way? | By which means?,So.,\r\n',
            id="csv of a spreadsheet",
        ),
    ],
)
def test_jsonl_and_csv_give_the_same_pairs_as_yaml(path: str, content: str) -> None:
    (entry,) = read(path, content).entries
    assert (entry.id, entry.title, entry.text, entry.url) == ("a", "How, exactly?", "So.", None)
    assert entry.variants == ("How, exactly?", "In what way?", "By which means?")


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        pytest.param(
            "a.yaml",
            "- questoin: x\n  answer: y",
            (
                "a.yaml, entry 1: 'questoin' is no field of an entry; did you mean question?",
                "a.yaml, entry 1: question is missing; every entry has a question and an answer",
            ),
            id="misspelt field",
        ),
        pytest.param(
            "a.yaml",
            "- question: q\n  answer: 24",
            ("a.yaml, entry 1: answer is a number ('24'), not text; put it in quotes",),
            id="number",
        ),
        pytest.param(
            "a.yaml",
            "- question: q\n  answer: a\n  similar: one",
            ("a.yaml, entry 1: similar is text ('one'), not a list; write [first wording, second wording]",),
            id="similar is no list",
        ),
        pytest.param(
            "a.yaml",
            "- question: q\n  answer: a\n  intent: Refund Time",
            (
                "a.yaml, entry 1: intent is 'Refund Time'; it is lower-case letters, digits, '_' and '-',"
                " at most 63 of them",
            ),
            id="intent",
        ),
        pytest.param(
            "a.yaml",
            "- {id: x, question: q, answer: a}\n- {id: x, question: r, answer: b}",
            ("a.yaml, entry 2: id is 'x', which a.yaml, entry 1 has already; give one of them another id",),
            id="duplicate id",
        ),
        pytest.param(
            "a.yaml",
            "- {question: q, answer: a}\n- {question: q, answer: b}",
            ("a.yaml, entry 2: id is 'qa-202e59010033', which a.yaml, entry 1 has already; ask the question once",),
            id="duplicate question",
        ),
        pytest.param(
            "a.yaml",
            "question: q",
            (
                "a.yaml: found a mapping (\"{'question': 'q'}\") where a list of entries was expected;"
                " begin each entry with '- question:'",
            ),
            id="no list",
        ),
        pytest.param(
            "a.csv",
            "question,answer\nq,a,b\n",
            (
                "a.csv, entry 1: the row has more cells than the header;"
                ' put cells that hold a comma in double quotes (")',
            ),
            id="csv with a loose comma",
        ),
        pytest.param(
            "a.txt",
            "退款".encode("gbk"),
            ("a.txt: byte 0 (0xcd) is not UTF-8; save the file as UTF-8",),
            id="not UTF-8",
        ),
        pytest.param(
            "a.docx",
            b"PK",
            (
                "a.docx: the ending '.docx' is unknown; knowledge is read from"
                " .csv, .htm, .html, .jsonl, .markdown, .md, .pdf, .txt, .yaml, .yml",
            ),
            id="unknown ending",
        ),
        pytest.param(
            "a.md",
            "# Only a heading",
            ("a.md: the file holds no text; write something into it or leave it out",),
            id="empty document",
        ),
        pytest.param(
            "a.md",
            "---\nintent: The API\n---\ntext",
            ("a.md: the front matter's intent is 'The API'; it is lower-case letters, digits, '_' and '-'",),
            id="no name of an intent",
        ),
    ],
)
def test_a_message_names_file_entry_field_value_and_remedy(
    path: str, content: str | bytes, expected: tuple[str, ...]
) -> None:
    assert problems(path, content) == expected


def test_all_problems_of_all_files_are_reported_at_once() -> None:
    files = [
        SourceFile("b.yaml", b"- question: q\n- answer: a\n  url: ftp://x"),
        SourceFile("a.jsonl", b"{nonsense\n"),
        SourceFile("c.pdf", b"%PDF-1.4 nothing"),
    ]
    with pytest.raises(SourcesInvalid) as caught:
        read_files(files)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "a.jsonl, entry 1",
        "b.yaml, entry 1",
        "b.yaml, entry 2",
        "b.yaml, entry 2",
        "c.pdf",
    ]
    assert str(caught.value).startswith("the knowledge sources have 5 problems:\n- a.jsonl")


def test_markdown_is_cut_at_headings_and_keeps_code_tables_and_links_readable() -> None:
    knowledge = read(
        "guide.md",
        """---
title: API guide
url: https://docs.example.com/guide
intent: api
---
Read [the manual](https://docs.example.com/manual) **first**.

# Calls

## Limits

| Plan | Calls |
|------|-------|
| Free | 120   |

- one
  - two
1. a

## Example

```sh
curl -X POST \\
  https://api.example.com
```
""",
    )
    entries = knowledge.entries
    assert [(entry.title, entry.text) for entry in entries] == [
        ("API guide", "Read the manual (https://docs.example.com/manual) first."),
        ("Calls › Limits", "Plan | Calls\nFree | 120\n\n- one\n  - two\n\n1. a"),
        ("Calls › Example", "curl -X POST \\\n  https://api.example.com"),
    ]
    assert {entry.url for entry in entries} == {"https://docs.example.com/guide"}
    assert {entry.kind for entry in entries} == {"document"}
    assert {entry.intent for entry in entries} == {"api"}
    assert [entry.variants for entry in entries] == [
        ("API guide",),
        ("Calls › Limits", "Limits"),
        ("Calls › Example", "Example"),
    ]
    assert [(example.text, example.answer) for example in knowledge.examples] == [
        (variant, entry.id) for entry in entries for variant in entry.variants
    ]


def test_html_loses_its_furniture_and_keeps_structure() -> None:
    entries = read(
        "help.html",
        """<html><head><title>帮助中心</title><link rel="canonical" href="https://shop.example.com/help"></head><body>
        <nav>首页</nav><main><p>欢迎<b>光临</b>。</p><h1>退货</h1><div><p>七天内<br>可以退货。</p>
        <ul><li>小件<ol><li>寄回</li></ol></li><li>大件</li></ul></div>
        <table><tr><th>商品</th><th>天数</th></tr><tr><td>手机</td><td>7</td></tr></table>
        <h2>例外</h2><pre>a = 1
  b</pre><p hidden>隐藏</p><script>alert(1)</script></main><footer>版权</footer></body></html>""",
    ).entries
    assert [(entry.title, entry.text) for entry in entries] == [
        ("帮助中心", "欢迎光临。"),
        ("退货", "七天内\n可以退货。\n\n- 小件\n  1. 寄回\n- 大件\n\n商品 | 天数\n手机 | 7"),
        ("退货 › 例外", "a = 1\n  b"),
    ]
    assert {entry.url for entry in entries} == {"https://shop.example.com/help"}


def test_plain_text_and_pdf_become_passages_and_pages_are_named() -> None:
    (text,) = read("notes/terms.txt", "First paragraph.\n\nSecond one.\n").entries
    assert (text.title, text.text) == ("terms", "First paragraph.\n\nSecond one.")
    pages = read("manual.pdf", pdf("Hold the button for ten seconds.", "Clean the filter monthly.")).entries
    assert [(page.title, page.text) for page in pages] == [
        ("manual, p. 1", "Hold the button for ten seconds."),
        ("manual, p. 2", "Clean the filter monthly."),
    ]


def test_a_pdf_without_text_says_what_to_do() -> None:
    assert problems("scan.pdf", pdf("")) == (
        "scan.pdf: the PDF holds no text, only pictures; run text recognition (OCR) over it first",
    )


def test_a_long_table_repeats_its_head_in_every_chunk() -> None:
    rows = "\n".join(f"| Model {number} | {number} years of warranty on the compressor |" for number in range(60))
    entries = read("t.md", f"# Warranty\n\n| Model | Warranty |\n|---|---|\n{rows}\n").entries
    assert len(entries) > 2
    assert all(entry.text.startswith("Model | Warranty\nModel ") for entry in entries)


WORDS = st.lists(st.sampled_from(["The", "compressor", "for", "years.", "No!", "Why?"]), min_size=1, max_size=9)
CHARACTERS = st.lists(
    st.sampled_from(["保修期内", "免费维修", "，", "。", "压缩机", "三年", "？"]), min_size=1, max_size=9
)


@given(WORDS, st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_long_text_is_cut_between_words_and_no_word_is_lost(words: list[str], times: int) -> None:
    text = " ".join(f"{number} {' '.join(words)}" for number in range(times))
    entries = read("long.txt", text).entries
    assert all(len(entry.text) <= CHUNK_LENGTH for entry in entries)
    assert [word for entry in entries for word in entry.text.split()] == text.split()


@given(CHARACTERS, st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_long_chinese_text_loses_no_character_and_fills_its_chunks(parts: list[str], times: int) -> None:
    text = "".join(f"{number}{''.join(parts)}" for number in range(times))
    entries = read("long.txt", text).entries
    assert all(len(entry.text) <= CHUNK_LENGTH for entry in entries)
    assert "".join(entry.text for entry in entries) == text
    assert len(entries) <= 2 * len(text) // CHUNK_LENGTH + 1


SECTIONS = st.lists(
    st.tuples(st.integers(2, 4), st.text("abcdef退货保修", min_size=1, max_size=6), st.text("ghij 运费。", min_size=3)),
    max_size=5,
)


@given(before=SECTIONS, after=SECTIONS)
@settings(max_examples=60, deadline=None)
def test_a_chunk_keeps_its_id_whatever_stands_in_the_other_sections(
    before: list[tuple[int, str, str]], after: list[tuple[int, str, str]]
) -> None:
    def section(level: int, heading: str, text: str) -> str:
        return f"{'#' * level} {heading}\n\nx{text.strip()}\n\n"

    kept = "## Returns\n\nWithin seven days.\n\n### Fees\n\nNone.\n\n"
    alone = {entry.id for entry in read("policy.md", f"# Policy\n\n{kept}").entries}
    content = "".join(section(*one) for one in before) + kept + "".join(section(*one) for one in after)
    others = [SourceFile("zz.txt", b"Something else."), SourceFile("policy.md", f"# Policy\n\n{content}".encode())]
    assert alone <= {entry.id for entry in read_files(others).entries}
