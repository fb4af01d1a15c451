"""Imports: other people's histories as sessions of a ledger, once, however often run."""
