"""Images: the catalogue, which maps image names to programs, and the imitation of pulls."""
