"""The whole stack, as its users run it: every service a process, real Kafka, real Postgres."""
