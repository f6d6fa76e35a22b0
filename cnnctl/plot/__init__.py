"""Pictures of data and results, as files. Prints nothing and shows no window."""
