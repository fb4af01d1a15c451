"""The offline verifier and the test runner for an outside auditor."""
