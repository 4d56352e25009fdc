"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A deadline a case measures the machine, not the code; and a run of the suite can be repeated.
settings.register_profile("chatflow", deadline=None, derandomize=True)
settings.load_profile("chatflow")
