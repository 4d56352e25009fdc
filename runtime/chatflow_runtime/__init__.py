"""The gateway and the worker: one turn of a conversation from request to reply, and what happens between turns."""
