"""Requests and their answers: HTTP, encodings, discovery, authentication, watches. Above the registry."""
