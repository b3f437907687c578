"""Model files: where they lie, what family they are, their hashes. Reads headers and JSON only, never weights."""
