"""Problems: read, templated into token ids once, drawn in a seeded order."""
