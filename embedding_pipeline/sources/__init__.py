"""Sources: where chunks and documents come from, day by day, with what is unusable kept aside."""
