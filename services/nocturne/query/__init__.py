"""The query service: answers reads from Postgres with credentials that cannot write."""
