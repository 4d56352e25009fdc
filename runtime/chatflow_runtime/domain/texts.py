"""What the bot says of its own accord: built-in texts in both languages, and a manifest's own in their place.

`bootstrap` prepares the texts of a flow once; `answerers`, `state` (notices) and `web` (shed) speak them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from chatflow_api.runtime_config import RuntimeConfig
from chatflow_api.v1alpha1 import Locale


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one flow."""

    greeting: str
    busy: str
    """Static reply: no model answered in time."""
    no_answer: str
    """Reply of a flow without a language model to what its knowledge does not answer."""
    refusal: str
    """Reply to a message, or end of an answer, that moderation refuses."""
    rating_ask: str
    """Acknowledges that the answer helped, and asks for a rating."""
    rated: str
    closing: str
    """Notice before a silent conversation ends; {seconds} is the time left."""
    ended: str
    slot_invalid: str
    """Reply when a text holds no value of the slot that was asked."""
    cancelled: str
    action_failed: str
    action_not_found: str
    broken_off: str
    """End of an answer whose stream broke off."""
    shed: str
    """Reply to a new conversation that is turned away."""
    interrupted: str
    """End of an answer that a newer message has interrupted."""
    too_fast: str
    """Refuses a message that comes too soon after many others."""
    failed: str
    """Notice that a message gets no answer."""
    handed_over: str
    """Reply to a message that asks for a person."""
    returned: str
    """Notice that the bot answers again."""
    unreached: str
    """The same, because nobody could be told of the handoff."""

    def notice(self, kind: Literal["closing", "ended"], seconds: float) -> str:
        """The text of a notice, `seconds` before the end."""
        if kind == "ended":
            return self.ended
        return self.closing.replace("{seconds}", str(max(0, math.ceil(seconds))))


def texts_for(config: RuntimeConfig) -> Texts:
    """The texts of a flow: its own where it has them, the built-in ones of its locale elsewhere."""
    dialogue, handoff = config.dialogue, config.dialogue.handoff
    built_in = _BUILT_IN[config.locale]
    return replace(
        built_in,
        greeting=dialogue.greeting or built_in.greeting,
        busy=dialogue.busy or built_in.busy,
        refusal=dialogue.refusal or built_in.refusal,
        rating_ask=dialogue.rating_ask or built_in.rating_ask.replace("{scale}", str(dialogue.rating_scale)),
        closing=dialogue.closing or built_in.closing,
        ended=dialogue.ended or built_in.ended,
        handed_over=(handoff and handoff.announce) or built_in.handed_over,
        returned=(handoff and handoff.returned) or built_in.returned,
        unreached=built_in.unreached,
    )


_BUILT_IN = {
    Locale.ZH_CN: Texts(
        greeting="您好，我是智能客服，请问有什么可以帮您？",
        busy="抱歉，现在咨询的人比较多，暂时无法回答您的问题，请稍后再试。",
        no_answer="抱歉，这个问题我暂时回答不了。您可以换个说法再问一次，或联系人工客服。",
        refusal="抱歉，您的消息包含不适宜的内容，我无法回复。请换个说法。",
        rating_ask="很高兴帮到您！请为本次服务打分：1 分表示很不满意，{scale} 分表示非常满意。",
        rated="感谢您的评价，祝您生活愉快！",
        closing="您已有一段时间没有发言，{seconds} 秒后将结束本次对话。如需继续，请直接回复。",
        ended="本次对话已结束，感谢您的咨询。如需帮助，随时给我发消息。",
        slot_invalid="抱歉，我没有识别出您提供的信息，请检查后再发一次；不想继续的话，回复“取消”即可。",
        cancelled="好的，已为您取消。请问还有什么可以帮您？",
        action_failed="抱歉，系统暂时查询不到结果，请稍后再试。",
        action_not_found="抱歉，没有找到对应的记录，请核对您提供的信息后再试。",
        broken_off="（抱歉，回答中断了，请稍后再问一次。）",
        shed="抱歉，当前咨询的人太多，请过几分钟再来。",
        interrupted="（已停止，改为回答您的新消息。）",
        too_fast="您发送得太快了，请稍等片刻再发。",
        failed="抱歉，您的一条消息没能得到回答，请再发一次。",
        handed_over="好的，正在为您转接人工客服，请稍候。您可以继续留言，客服会看到完整的对话。",
        returned="人工服务已结束，接下来由智能客服继续为您服务。",
        unreached="暂时没有人工客服能接待您，由智能客服继续为您服务。",
    ),
    Locale.EN: Texts(
        greeting="Hello, I am the virtual assistant. How can I help you?",
        busy="Sorry, many people are asking right now and I cannot answer your question. Please try again in a moment.",
        no_answer="Sorry, I do not have an answer to that. Please put it another way, or contact our support team.",
        refusal="Sorry, your message contains something that I cannot respond to. Please put it another way.",
        rating_ask="Glad that I could help! How would you rate this chat, from 1 (very poor) to {scale} (excellent)?",
        rated="Thank you for your rating, and have a nice day!",
        closing="You have been quiet for a while. This chat will end in {seconds} seconds; just reply to go on.",
        ended="This chat has ended. Thank you for contacting us; send a message whenever you need help.",
        slot_invalid='Sorry, I could not find that in your message. Please check and send it again, or reply "cancel".',
        cancelled="All right, cancelled. Is there anything else that I can help you with?",
        action_failed="Sorry, I cannot get the result right now. Please try again later.",
        action_not_found="Sorry, I found no such record. Please check what you sent and try again.",
        broken_off="(Sorry, the answer was cut off. Please ask again in a moment.)",
        shed="Sorry, too many people are asking right now. Please come back in a few minutes.",
        interrupted="(Stopped, to answer your new message.)",
        too_fast="You are sending messages very quickly. Please wait a moment, then send it again.",
        failed="Sorry, one of your messages could not be answered. Please send it again.",
        handed_over="All right, I am getting a colleague for you. Write on meanwhile; they will see the whole chat.",
        returned="Our colleague has left the chat. The virtual assistant is here for you again.",
        unreached="None of our colleagues can be reached right now. The virtual assistant is here for you again.",
    ),
}
