"""A stand-in for the OpenAI embeddings API: real HTTP on loopback, real caps, real books.

Belongs here: what the API is known to do, well or badly, and an account of what it would
have billed. Does not belong here: any knowledge of the client under test.
"""
