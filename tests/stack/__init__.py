"""Real servers for the tests and the demo: a private RabbitMQ, PostgreSQL and Rucio, and a proxy to disturb them."""
