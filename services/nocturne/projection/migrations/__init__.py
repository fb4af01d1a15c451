"""Numbered migrations of the schema `nocturne_v1`; a file that was applied is never changed."""
