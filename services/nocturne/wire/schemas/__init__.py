"""The frozen Avro schemas, one file each."""
