"""Tenants as code: ``tenants/<slug>.toml`` is checked, compared with the database, and applied."""
