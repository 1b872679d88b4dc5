"""A cluster of three PostgreSQL nodes under Patroni, with etcd and HAProxy, and a load test with failures of its leader."""
