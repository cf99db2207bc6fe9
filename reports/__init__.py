"""Reports: one file, one table or figure of the paper."""
