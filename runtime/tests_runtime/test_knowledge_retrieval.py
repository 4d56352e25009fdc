"""What is found for which question, in Chinese and in English, by words alone and with the real sentence encoder."""

from __future__ import annotations

from pathlib import Path

import pytest
from chatflow_models.intent import UniversalEncoder
from chatflow_runtime.adapters.knowledge import Knowledge, KnowledgeIndex, SourceFile, build_index, read_files
from chatflow_runtime.domain.normalisation import normalise
from chatflow_runtime.ports import Passage, Query

MIN_SCORE = 0.35

SHOP = """id,intent,question,similar,answer
refund-time,refund,退款多久能到账？,退的钱几天能收到,验收后退款，银行卡三天到账。
refund-where,refund,退款会退到哪里？,钱是原路返回吗,用什么付的就退到哪里。
return-fee,return,退货的运费谁出？,寄回去的快递费你们报销吗,质量问题由我们承担。
ship-time,shipping,下单后多久发货？,今天拍今天能发出吗,下午四点前付款的当天出库。
free-shipping,shipping,满多少钱包邮？,凑够多少不要邮费,实付满 99 元包邮。
invoice,invoice,怎么开发票？,发票在哪里申请,在订单详情里申请。
password,account,忘记登录密码怎么办？,密码忘了登不上去,收验证码后设置新密码。
agent,contact,怎么转人工客服？,我要找真人,在客服中心排队。
coupon,promotion,优惠券为什么用不了？,结算的时候券是灰的,请看券面的使用条件。
warranty,warranty,商品保修多长时间？,质保几年,大家电保修一年。
"""
SAAS = """id,intent,question,similar,answer
reset,login,How do I reset my password?,I forgot my password|Set a new one,Choose Forgot password.
invoice,billing,Where can I download my invoices?,Get a PDF copy of the bill,Under Settings and Billing.
cancel,billing,How do I cancel my subscription?,Turn off auto-renewal,An owner confirms it.
refund,billing,Can I get a refund?,Money back if we are not happy,Within 30 days of a yearly payment.
dark,account,Is there a dark mode?,Change the colour theme,Choose it under Preferences.
offline,apps,Can I work offline?,Use it on a plane without internet,The apps keep open projects.
webhook,api,How do I set up webhooks?,Call our server when a task changes,Add the URL.
limit,api,What are the rate limits of the API?,I get HTTP 429 too many requests,120 a minute.
invite,members,How do I invite colleagues?,Add new people to our workspace,Press Invite.
export,data,How do I export all our data?,Download a backup of the workspace,An admin starts it.
"""
PARAPHRASES = {
    "shop.csv": [
        ("钱多久会回到我卡里", "refund-time"),
        ("想跟活人聊聊", "agent"),
        ("进不去账号，口令想不起来", "password"),
        ("买完以后啥时候能寄出来", "ship-time"),
        ("东西坏了还在不在质保期", "warranty"),
    ],
    "saas.csv": [
        ("we want to stop paying you", "cancel"),
        ("my eyes hurt from the bright screen at night", "dark"),
        ("can't get in, lost my login credentials", "reset"),
        ("does it work in the subway with no signal", "offline"),
        ("bring my teammates on board", "invite"),
    ],
}


@pytest.fixture(scope="module")
def encoder() -> UniversalEncoder:
    return UniversalEncoder()


def knowledge(name: str) -> Knowledge:
    return read_files([SourceFile(name, {"shop.csv": SHOP, "saas.csv": SAAS}[name].encode())])


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KnowledgeIndex]:
    folder = tmp_path_factory.mktemp("light")
    return {name: KnowledgeIndex.load(build_index(knowledge(name), None, folder).folder) for name in PARAPHRASES}


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory, encoder: UniversalEncoder) -> dict[str, KnowledgeIndex]:
    folder = tmp_path_factory.mktemp("hybrid")
    return {name: KnowledgeIndex.load(build_index(knowledge(name), encoder, folder).folder) for name in PARAPHRASES}


def search(
    index: KnowledgeIndex,
    text: str,
    encoder: UniversalEncoder | None = None,
    intents: tuple[tuple[str, float], ...] = (),
) -> list[Passage]:
    text = normalise(text)
    embedding = encoder.encode([text])[0] if encoder else None
    return index.search([Query(text, intents, embedding)], 5)[0]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("shop.csv", "请问退款几天能到账啊", "refund-time", id="other words around it"),
        pytest.param("shop.csv", "訂單多久發貨", "ship-time", id="traditional characters"),
        pytest.param("shop.csv", "退货运费谁来承担", "return-fee", id="words of the answer"),
        pytest.param("shop.csv", "订单 QH20250013 满多少包邮", "free-shipping", id="order number"),
        pytest.param("saas.csv", "i forgott my pasword", "reset", id="misspelt"),
        pytest.param("saas.csv", "downloading an invoice", "invoice", id="inflected"),
        pytest.param("saas.csv", "API RATE LIMIT?", "limit", id="upper case"),
        pytest.param("saas.csv", "getting error 429", "limit", id="number"),
    ],
)
def test_words_alone_find_the_entry(light: dict[str, KnowledgeIndex], name: str, text: str, expected: str) -> None:
    best, *others = search(light[name], text)
    assert best.id == expected
    assert all(0 < other.score <= best.score < 1 for other in others)


@pytest.mark.parametrize("name", list(PARAPHRASES))
def test_a_question_as_it_stands_in_the_knowledge_comes_first_and_high(
    light: dict[str, KnowledgeIndex], hybrid: dict[str, KnowledgeIndex], encoder: UniversalEncoder, name: str
) -> None:
    for entry in light[name].entries:
        for variant in entry.variants:
            for passages in (search(light[name], variant), search(hybrid[name], variant, encoder)):
                assert passages[0].id == entry.id
                assert passages[0].score > 0.6


@pytest.mark.parametrize("name", list(PARAPHRASES))
def test_the_encoder_finds_paraphrases_that_words_miss(
    light: dict[str, KnowledgeIndex], hybrid: dict[str, KnowledgeIndex], encoder: UniversalEncoder, name: str
) -> None:
    def hits(passages: list[Passage], expected: str) -> bool:
        return bool(passages) and passages[0].id == expected

    by_words = sum(hits(search(light[name], text), expected) for text, expected in PARAPHRASES[name])
    by_both = sum(hits(search(hybrid[name], text, encoder), expected) for text, expected in PARAPHRASES[name])
    assert by_both > by_words
    assert by_both >= 4


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        (
            "shop.csv",
            ["退款什么时候到", "发票怎么弄", "登录密码忘记了", "转人工", "券用不了"],
            ["今天北京天气怎么样", "给我讲个笑话", "感冒了吃什么药好", "特斯拉股票能买吗", "红烧肉怎么做"],
        ),
        (
            "saas.csv",
            ["reset my password", "where are my invoices", "cancel our subscription", "refund please", "invite people"],
            [
                "what's the weather in Berlin tomorrow",
                "who won the world cup",
                "tell me a joke",
                "cook pasta carbonara",
                "my head aches",
            ],
        ),
    ],
    ids=["zh", "en"],
)
def test_the_default_minimum_score_parts_questions_with_an_answer_from_those_without(
    hybrid: dict[str, KnowledgeIndex], encoder: UniversalEncoder, name: str, inside: list[str], outside: list[str]
) -> None:
    answered = [search(hybrid[name], text, encoder)[0].score for text in inside]
    refused = [max((p.score for p in search(hybrid[name], text, encoder)), default=0.0) for text in outside]
    assert min(answered) >= MIN_SCORE > max(refused)


def test_likely_intents_decide_between_look_alikes(light: dict[str, KnowledgeIndex]) -> None:
    def scores(*intents: tuple[str, float]) -> dict[str, float]:
        return {passage.id: passage.score for passage in search(light["shop.csv"], "要等多久", intents=intents)}

    refund, shipping = scores(("refund", 0.99), ("shipping", 0.01)), scores(("shipping", 0.99), ("refund", 0.01))
    assert next(iter(refund)) == "refund-time"
    assert next(iter(shipping)) == "ship-time"
    assert scores(("refund", 0.5), ("shipping", 0.5))["refund-time"] < refund["refund-time"]
    assert scores(("weather", 1.0))["ship-time"] < shipping["ship-time"]


def test_nothing_in_common_finds_nothing(light: dict[str, KnowledgeIndex]) -> None:
    assert search(light["shop.csv"], "ζ ψ") == []
    assert search(light["shop.csv"], "") == []


def test_documents_are_found_beside_pairs_and_a_passage_shows_where_it_comes_from(tmp_path: Path) -> None:
    guide = "# Dryer manual\n\n## Filter\n\nClean the lint filter after each load.\n\n## Door\n\nPull the handle.\n"
    files = [
        SourceFile("saas.csv", SAAS.encode()),
        SourceFile("dryer.md", guide.encode()),
        SourceFile("copy.md", guide.encode()),
    ]
    index = KnowledgeIndex.load(build_index(read_files(files), None, tmp_path).folder)
    best, *others = search(index, "how often should I clean the lint filter")
    assert (best.kind, best.title, best.source) == ("document", "Dryer manual › Filter", "copy.md")
    assert best.text == "Clean the lint filter after each load."
    assert best.text not in {other.text for other in others}
