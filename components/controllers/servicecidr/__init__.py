"""ServiceCIDRs: made ready, and kept while addresses of theirs are in use (KEP-1880)."""
