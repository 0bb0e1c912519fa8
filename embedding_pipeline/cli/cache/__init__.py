"""``embedding-pipeline cache``: what the cache holds, and looking after it.

Belongs here: options, words and exit codes of its commands. Does not belong here: any
reading, deleting or storing of vectors (``cache``, ``pipeline``).
"""
