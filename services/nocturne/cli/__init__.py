"""The nocturne command line."""
