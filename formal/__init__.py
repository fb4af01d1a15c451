"""Agreement of the consensus rules, proved in Coq and model-checked with TLC: `make proofs`."""
