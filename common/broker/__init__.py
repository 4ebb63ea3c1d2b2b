"""The door to the broker: queues, confirmed publishing, consuming, the stream of events."""
