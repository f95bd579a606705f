"""What a vendor puts on an invoice, and whether it can."""
