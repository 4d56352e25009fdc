"""Pure rules of the chat: scenes, routing, rungs, moderation, prompts. No input or output, no clock, no randomness."""
