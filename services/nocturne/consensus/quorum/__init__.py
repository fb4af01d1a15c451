"""The certificate core of n validators: pure. Rules: docs/spec/quorum.md."""
