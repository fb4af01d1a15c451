"""The pure rules of the ledger, shared by every service; no module here does I/O."""
