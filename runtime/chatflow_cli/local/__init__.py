"""`chatflow up`: a manifest as processes on one machine."""
