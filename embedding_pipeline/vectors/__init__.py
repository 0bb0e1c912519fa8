"""The datasets under ``data_dir``: where they are, how they are read, written and searched."""
