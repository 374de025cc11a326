"""ServiceCIDRs: made ready, and kept while one of their addresses is in use (KEP-1880)."""
