"""Services and endpoints as the rules need them, kept up to date from the API. No rules are written
here."""
