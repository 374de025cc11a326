"""Operations on objects of any kind, above the store: admission, ownership, patches, deletion."""
