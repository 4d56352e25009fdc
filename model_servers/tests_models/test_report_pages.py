"""The report of a rehearsal: complete, readable without network or script, and showing texts as they are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from chatflow_models.intent import IntentModel, NoEncoder
from chatflow_models.training import Example, Rehearsed, Settings, rehearse
from chatflow_models.training.fit import fit_model
from chatflow_models.training.pages import html_page, markdown
from tests_models.flow_examples import EXAMPLES

HOSTILE = '<b>退款</b> & "发票" </svg><script>x</script>'
ODD_INTENT = "开票<&>问题"


@pytest.fixture(scope="module")
def rehearsed() -> Rehearsed:
    light = NoEncoder()
    odd = [Example(f"{word} {HOSTILE}", ODD_INTENT) for word in ("one", "zwei", "三", "quatre", "cinque", "シックス")]
    odd.append(Example(f"one {HOSTILE} too", "refund"))
    # A third of the examples are new, so that there is a stand-in to draw beside the new model.
    current = IntentModel(fit_model([e for i, e in enumerate(EXAMPLES) if i % 3], light).stored, light)
    return rehearse([*EXAMPLES, *odd], light, Settings(held_out=0.4), current)


@pytest.fixture(scope="module")
def page(rehearsed: Rehearsed) -> str:
    return html_page(rehearsed)


class _Outline(HTMLParser):
    """What a page consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_needs_no_script_and_no_network_and_shows_texts_as_they_are(page: str) -> None:
    outline = _Outline()
    outline.feed(page)
    assert not {"script", "link", "img", "iframe"} & set(outline.tags)
    assert outline.addresses == []
    assert "url(" not in page
    assert "@import" not in page
    assert any(HOSTILE.lower() in text for text in outline.texts)
    assert ODD_INTENT in outline.texts


def test_every_plot_is_well_formed_and_says_in_words_what_it_shows(page: str) -> None:
    drawings = [ElementTree.fromstring(found) for found in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]  # noqa: S314
    assert [drawing.findtext("title") for drawing in drawings] == [
        *("Is the confidence right?", "How sure is the model?", "What does the threshold buy?"),
        *("Which intents are hard?", "What is taken for what?"),
    ]
    for drawing in drawings:
        assert drawing.get("role") == "img"
        assert len(drawing.findtext("desc") or "") > 20
        named = (drawing.get("aria-labelledby") or "").split()
        assert set(named) == {each.get("id") for each in drawing.iter() if each.get("id")}


def test_nothing_is_drawn_outside_a_plot(page: str) -> None:
    for found in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        drawing = ElementTree.fromstring(found)  # noqa: S314
        _, _, width, height = map(float, (drawing.get("viewBox") or "").split())
        for each in drawing.iter("rect"):
            assert float(each.get("x", "")) + float(each.get("width", "")) <= width
            assert -0.01 <= float(each.get("y", "")) <= height - float(each.get("height", "")) + 0.01
        for each in drawing.iter("circle"):
            assert 0 <= float(each.get("cx", "")) <= width
            assert 0 <= float(each.get("cy", "")) <= height


def test_markdown_and_page_tell_the_same_figures(rehearsed: Rehearsed, page: str) -> None:
    text = markdown(rehearsed)
    rows = re.findall(r"^\| (\S.*?) \| ([\d.]+) \| ([\d.]+) \| (.*?) \|$", text, re.MULTILINE)
    assert [title for title, *_ in rows] == [
        *("accuracy", "coverage above 0.85", "precision above 0.85", "calibration error", "out-of-scope leak")
    ]
    for row in rows:
        assert all(cell in page for cell in row)
    assert rehearsed.fitted.report.version in text
    assert "\\<b\\>退款\\</b\\>" in text
