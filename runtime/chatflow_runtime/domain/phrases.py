"""Short texts that mean the same in every flow: a greeting, thanks, giving up, a rating. In Chinese and English alike.

Called by `routing`. A text counts only as a whole, whatever its case and punctuation: "谢谢，解决了" is thanks,
"谢谢，那运费呢" is a question.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Phrase(StrEnum):
    """What a whole text means."""

    GREETING = "greeting"
    SATISFIED = "satisfied"
    CANCEL = "cancel"
    HANDOFF = "handoff"
    """The user wants to talk to a person."""


def phrase_of(text: str) -> Phrase | None:
    """What a normalised text means as a whole; None for everything else. Clauses that mean the same mean it together,
    giving up stays that with thanks beside it ("算了，谢谢"), asking for a person with any of them ("你好，转人工")."""
    if len(text) > MAX_PHRASE_LENGTH:
        return None
    whole = _PHRASES.get(bare(text))
    clauses = [] if whole is not None else [clause for clause in _CLAUSE.split(text) if clause]
    if len(clauses) < 2:
        return whole
    meant = set()
    for clause in filter(None, map(bare, clauses)):
        phrase = _PHRASES.get(clause)
        if phrase is None:
            return None
        meant.add(phrase)
    if Phrase.HANDOFF in meant:
        return Phrase.HANDOFF
    if meant == {Phrase.CANCEL, Phrase.SATISFIED}:
        return Phrase.CANCEL
    return meant.pop() if len(meant) == 1 else None


def bare(text: str) -> str:
    """What is compared of a normalised phrase: lower case, without punctuation; Latin words one space apart, nothing
    between Han characters."""
    words = text.translate(_LETTERS).split()
    found = words[0] if words else ""
    for word in words[1:]:
        found += f" {word}" if found[-1].isascii() and word[0].isascii() else word
    return found


def parse_rating(text: str, scale: int) -> int | None:
    """The rating from 1 to `scale` that a normalised text gives, or None.

    Digits and number words count, alone or with their unit (5, 5分, 给五星, four stars, 4/5, 打 3 分吧), so do full
    marks (满分) and a row of stars.
    """
    if len(text) > MAX_PHRASE_LENGTH or _NEGATIVE.search(text):
        return None
    rating = re.sub(rf"\s*(?:/|of|out of)\s*{scale}\b", "", text.casefold())
    stars = [character for character in rating if character in _STARS]
    if stars and not any(character.isalnum() for character in rating):
        return _within(len(stars), scale)
    match = _RATING.fullmatch(bare(rating))
    if match is None:
        return None
    if match.group("full"):
        return scale
    number = match.group("number")
    return _within(int(number) if number.isdecimal() else _NUMBERS[number], scale)


MAX_PHRASE_LENGTH = 40
"""Characters; no phrase is longer, so that a long text costs nothing."""

_GREETINGS = """
你好 您好 你好啊 你好呀 您好啊 你好你好 你们好 哈喽 哈罗 哈啰 嗨 嘿 喂 在吗 在么 在嘛 在不在 有人吗 有人在吗
你好在吗 您好在吗 客服在吗 早 早上好 上午好 中午好 下午好 晚上好 早安 晚安 大家好 客服你好 客服您好 你好客服
您好客服 亲 亲在吗
hi|hello|hey|hey there|hi there|hello there|good morning|good afternoon|good evening|greetings|howdy|yo|hiya
hi all|hello everyone|anyone there|is anyone there|anybody there|are you there|you there|hello hello|hi hi
morning
"""
_SATISFIED = """
谢谢 谢谢你 谢谢您 谢谢啦 谢谢了 谢了 谢谢谢谢 非常感谢 十分感谢 多谢 多谢了 感谢 感谢您 感谢你 太感谢了 辛苦了
麻烦你了 麻烦您了 解决了 已解决 已经解决 已经解决了 问题解决了 我的问题解决了 解决了谢谢 谢谢解决了 都解决了
搞定 搞定了 可以了 可以了谢谢 行了 好了 好了谢谢 明白了 我明白了 明白了谢谢 好的明白了 明白 懂了 知道了 我知道了
知道了谢谢 好的知道了 清楚了 了解了 了解 好的了解 好的谢谢 好谢谢 好的谢谢你 好的谢谢您 好的多谢 行谢谢 嗯谢谢
ok谢谢 好的 好 嗯好的 行 ok好的 没问题 没问题了 没有问题了 没有了 没了 没有了谢谢 没其他问题了 没有其他问题了
没别的了 没别的问题了 有帮助 有用 很有帮助 很有用 帮到我了 帮了大忙 满意 很满意 非常满意 是的 是的谢谢 是 对
对的 是的解决了 太好了 太棒了 谢谢再见 再见 拜拜 再见谢谢 好的再见
thanks|thank you|thanks a lot|thank you very much|thank you so much|many thanks|thanks so much|thx|ty|cheers
tysm|thanks that helped|thank you that helped|that helped|that helped thanks|that helps|that helps thanks
thanks that helps|that helped a lot|very helpful|helpful|that was helpful|thats helpful|this helped|it helped
you helped|great help|solved|its solved|it is solved|problem solved|resolved|its resolved|fixed|its fixed
that fixed it|that solved it|that worked|it worked|it works|it works now|works now|that works|that works thanks
working now|all good|all good thanks|all set|im all set|im good|im good thanks|got it|got it thanks|ok got it
okay got it|i got it|understood|i understand|i see thanks|ok thanks|okay thanks|ok thank you|okay thank you
great thanks|great thank you|perfect|perfect thanks|perfect thank you|great|awesome|awesome thanks|excellent
wonderful|cool|cool thanks|nice|nice thanks|ok|okay|yes|yes thanks|yes thank you|yes it did|yes that helped
yes solved|yes it helped|yes it does|yep|yup|yeah|thats all|that is all|thats all thanks|that is all thanks
thats everything|nothing else|no more questions|no thats all|no that is all|no thanks|no thank you
nope thats all|no im good|bye|goodbye|bye bye|thanks bye|see you|have a nice day
"""
_CANCEL = """
算了 算了吧 还是算了 还是算了吧 那算了 那算了吧 算了不用了 算了谢谢 取消 取消吧 取消了 我要取消 不用了 不用
不用了谢谢 不用查了 不用管了 不需要了 不需要 不要了 不查了 不问了 不弄了 不办了 先不用了 先不查了 先这样
先这样吧 没事了 没事 停 停止 停下 停一下 退出 返回 结束 不想查了 我不想查了 不想要了 别查了 别问了 放弃 回头再说
下次再说 以后再说 换个问题 换一个问题
cancel|cancel that|cancel it|cancel this|cancel please|please cancel|i want to cancel|never mind|nevermind|nvm
forget it|forget about it|forget that|stop|stop it|stop that|please stop|quit|exit|abort|no longer needed
not needed|not needed anymore|i changed my mind|changed my mind|dont bother|do not bother|no need|leave it
drop it|skip it|skip|skip this|not now|maybe later|later|go back|back|start over|its fine|its ok never mind
ok never mind|no never mind|actually never mind|i dont want to|i dont need it|i do not need it anymore
i dont need it anymore|something else|i give up
"""
_HANDOFF = """
人工 转人工 转人工吧 转接人工 请转人工 帮我转人工 给我转人工 我要转人工 我想转人工 麻烦转人工 转一下人工 能转人工吗
可以转人工吗 怎么转人工 如何转人工 人工客服 人工服务 转人工客服 转人工服务 转接人工客服 请转人工客服 帮我转人工客服
我要人工 我要人工客服 我要人工服务 我要找人工 我要找人工客服 我想找人工客服 找人工 找人工客服 找人工服务 联系人工客服
联系人工 呼叫人工 呼叫人工客服 叫人工 叫人工客服 换人工 换人工客服 切换人工 切换人工客服 接人工 接人工客服 接入人工
有人工吗 有人工客服吗 有没有人工 有没有人工客服 要人工 需要人工 需要人工客服 需要人工服务 真人 真人客服 转真人
转真人客服 我要真人 我要真人客服 找真人 找真人客服 我要和真人说话 我要跟真人说话 换真人 转客服 我要找客服 找客服
我要投诉转人工 不要机器人 我不要机器人 不想和机器人说话 我不想和机器人说话 别用机器人
human|a human|human please|a human please|real person|a real person|agent|an agent|agent please|live agent
human agent|representative|a representative|operator|support agent|customer service agent|live chat
talk to a human|talk to human|talk to an agent|talk to agent|talk to a person|talk to a real person|talk to someone
talk to support|talk to a representative|speak to a human|speak to human|speak to an agent|speak to a person
speak to a real person|speak to someone|speak with a human|speak with an agent|speak with a person
speak with a real person|speak with someone|speak to a representative|speak with a representative|talk with a human
talk with an agent|talk with a person|chat with a human|chat with an agent|chat with a person|connect me to a human
connect me to an agent|connect me with a human|connect me with an agent|connect me to a person
transfer me to a human|transfer me to an agent|transfer to a human|transfer to an agent|get me a human|get me an agent
get me a person|i want a human|i want an agent|i want a person|i need a human|i need an agent|i need a person
i want to talk to a human|i want to talk to an agent|i want to talk to a person|i want to talk to a real person
i want to talk to someone|i want to speak to a human|i want to speak to an agent|i want to speak to a person
i want to speak to someone|i need to talk to a human|i need to talk to an agent|i need to talk to a person
i need to speak to someone|i would like to talk to a human|i would like to speak to a human|id like to talk to a human
id like to talk to an agent|id like to speak to a human|id like to speak to an agent|id like to talk to someone
can i talk to a human|can i talk to an agent|can i talk to a person|can i talk to a real person|can i talk to someone
can i speak to a human|can i speak to an agent|can i speak to a person|can i speak to someone
can i speak with a human|can i speak with someone|could i talk to a human|could i speak to a human
may i speak to a human|let me talk to a human|let me talk to a person|let me speak to a human|no bots|no bot
i dont want a bot|i dont want to talk to a bot
"""
_ENGLISH_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {
    **{word: number for number, word in enumerate("一二三四五六七八九十", start=1)},
    **{word: number for number, word in enumerate(_ENGLISH_NUMBERS, start=1)},
    "两": 2,
    "俩": 2,
}
_STARS = "★⭐🌟"
_LEADS = (
    "我|你|您|打|给|评|选|就|想|会|要|评分|打分|评价"
    "|i|id|ill|give|would|say|rate|rating|score|you|it|that|this|my|is|a|an"
)
_RATING = re.compile(
    rf"(?:(?:{_LEADS}) ?)*"
    rf"(?:(?P<full>满分)|(?P<number>[0-9]{{1,2}}|{'|'.join(_NUMBERS)}) ?(?:[颗个]?(?:分|星|星星|星级)|points?|stars?)?)"
    r" ?(?:(?:吧|啦|了|哦|好评|谢谢|please|thanks) ?)*"
)
_CLAUSE = re.compile("[,.!?;~，。！？；～、…]+")
_NEGATIVE = re.compile(r"[-−]\s*[0-9]")


class _Letters(dict[int, str]):
    """What remains of each character; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        remains = character.casefold() if character.isalnum() else "" if character in "'’‘`" else " "
        if len(self) < _KEPT_CHARACTERS:
            self[code] = remains
        return remains


_KEPT_CHARACTERS = 20_000
_LETTERS = _Letters()


def _within(rating: int, scale: int) -> int | None:
    return rating if 1 <= rating <= scale else None


def _phrases(lines: str, phrase: Phrase) -> dict[str, Phrase]:
    """Lines with bars hold English phrases between them, others Chinese ones between spaces."""
    found = {}
    for line in lines.strip().splitlines():
        for one in line.split("|") if "|" in line else line.split():
            found[bare(one)] = phrase
    return found


_PHRASES = {
    **_phrases(_GREETINGS, Phrase.GREETING),
    **_phrases(_SATISFIED, Phrase.SATISFIED),
    **_phrases(_CANCEL, Phrase.CANCEL),
    **_phrases(_HANDOFF, Phrase.HANDOFF),
}
