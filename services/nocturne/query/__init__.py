"""The read side: sessions, events, receipts, states and proofs from PostgreSQL, over gRPC."""
