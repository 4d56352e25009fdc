"""Faults under load: real gateways, workers and state servers are killed, cut off and filled up while users talk, and
every message is counted afterwards. `make faults` runs all scenarios."""
