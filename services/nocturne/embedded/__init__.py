"""Everything on one machine: real Kafka and PostgreSQL and every service under one supervisor."""
