"""Near-duplicates: quality on labelled pairs, speed and memory beside other libraries."""
