"""Writes each prediction as a record, to Parquet segments or to a Kafka topic, outside of the request."""
