"""Whose host a request is for: names (pure), the resolver over the database, and the gate in front of every page."""
