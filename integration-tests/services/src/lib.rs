//! Real servers for tests and developer tasks: a Kafka broker and an S3 server.
