"""Real parts for the tests: a PostgreSQL server, and ecomcharge itself as a process of its own."""
