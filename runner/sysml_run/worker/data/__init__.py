"""From any data file to exact labels: files, members, rows, conversations, tokens, splits, report, cache.

Parquet, arrow and hub sets are not read here, and rows are neither packed nor weighted.
"""
