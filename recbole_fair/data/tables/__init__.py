"""Tables as others keep them (csv, tsv, parquet, jsonl): read in batches, and converted into atomic files."""
