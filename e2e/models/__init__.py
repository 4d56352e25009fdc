"""A real language model for tests and benchmarks: vLLM on CPU with a model of two layers."""
