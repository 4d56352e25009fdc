"""One module per way to answer: cached, knowledge, action, llm, canned."""
