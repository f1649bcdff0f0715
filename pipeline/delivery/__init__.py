"""Delivery: decisions become durable in the store, and committed events go out through the relay."""
