"""Images: the catalogue of programs that their names stand for, and pulls."""
