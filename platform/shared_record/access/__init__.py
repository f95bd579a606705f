"""Access: links and codes, policies, step-up, host-bound sessions, API keys, and the audit trail of all of them."""
