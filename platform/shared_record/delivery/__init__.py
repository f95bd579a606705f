"""Webhooks: the outbox of events, endpoints, and sending to them."""
