"""The demonstration: a company buys on a ledger of this machine, which then attacks itself."""
