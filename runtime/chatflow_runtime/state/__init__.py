"""Conversation state: keys and Lua scripts, the Redis store and its in-memory twin."""
