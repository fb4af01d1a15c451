"""Generated from proto/ by `make proto`: messages, gRPC stubs and Avro schemas."""
