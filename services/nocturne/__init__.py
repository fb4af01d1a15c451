"""Nocturne: a signed event ledger whose every fact carries a proof back to its author."""

__version__ = "0.1.0"
