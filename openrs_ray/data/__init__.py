"""Problems: read from files or the Hub, templated into token ids once, drawn in a seeded order."""
