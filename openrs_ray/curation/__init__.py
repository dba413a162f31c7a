"""From raw rows to a training set: filters, models' judgements, decontamination, deduplication, mixing. No Ray here."""
