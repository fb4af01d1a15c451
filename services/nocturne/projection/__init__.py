"""The read model: certified content with the authority's signatures, in PostgreSQL."""
