"""HTTP: customer pages, the vendor and public JSON API, and the system endpoints."""
