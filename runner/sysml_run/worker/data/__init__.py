"""From any data file to exact labels: files, members, rows, conversations, tokens, splits, packing, report, cache."""
