"""What a deployment runs once, and what each of its services is granted. No service."""
