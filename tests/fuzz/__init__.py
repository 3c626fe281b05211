"""Fuzzing: bytes of strangers and of damaged files, and what may come of them (`targets`); ``python -m fuzz NAME``."""
