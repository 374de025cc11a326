"""HTTP requests and answers, encodings, discovery, authentication and watches, above the
registry.
"""
