"""The Python SDK: builds and signs commands, submits them, and checks what comes back."""
