"""How many model servers run: the rule, the autoscaler that follows it, and a simulator of both. Pure."""
