"""The projection service: keeps the read models in Postgres in step with the certified chain."""
