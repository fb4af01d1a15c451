"""What strangers send, at every entrance: parsers here, the running stack in test_entrances.py."""
