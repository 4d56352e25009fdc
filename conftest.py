"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# A deadline a case measures the machine, not the code.
settings.register_profile("chatflow", deadline=None)
settings.load_profile("chatflow")
