"""The command service: admits author-signed commands and answers at the finality level asked for."""
