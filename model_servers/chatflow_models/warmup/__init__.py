"""The sidecar beside an OpenAI-compatible server: ready only once real prompts have run and run fast."""
