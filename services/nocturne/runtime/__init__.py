"""The only place where services touch Kafka, Postgres, gRPC, keys and the clock."""
