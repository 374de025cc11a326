"""Objects of the API whatever their kind: admission, field ownership, patches, deletion. Above the store."""
