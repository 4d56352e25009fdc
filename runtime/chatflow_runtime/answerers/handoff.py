"""A conversation that a person answers: how it gets there, and what the bot does meanwhile, which is to pass messages
on. Called by `dispatch`."""

from __future__ import annotations

from typing import Literal

from chatflow_runtime.domain.conversation import Conversation, Message
from chatflow_runtime.domain.deliveries import Delivery, HandoffMessage, HandoffRequested, Hook
from chatflow_runtime.domain.handoff import handoff_id, transcript


def requested(uid: str, message: Message, conversation: Conversation, reason: Literal["phrase", "intent"]) -> Delivery:
    """Asks a person to take over, with all that was said."""
    # A message whose first attempt was interrupted stands in the stored history already.
    earlier = [one for one in conversation.history if one.message_id != message.message_id]
    messages, is_cut = transcript([*earlier, message])
    told = HandoffRequested(
        uid, message.message_id, reason, conversation.scene, conversation.memory.slots, messages, is_cut
    )
    named = handoff_id(uid, message.message_id, conversation.revision, message.at_ms)
    return Delivery(Hook.HANDOFF, told, message.at_ms, handoff_id=named)


def relayed(uid: str, message: Message, handoff: str | None) -> Delivery:
    """Passes on what the user says meanwhile."""
    return Delivery(Hook.HANDOFF, HandoffMessage(uid, message), message.at_ms, handoff_id=handoff)
