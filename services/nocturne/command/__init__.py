"""The command service: admits author-signed commands, answers at the finality level asked for."""
