"""Storage drivers. Only the folder yet: SR types come with the storage work."""
