"""Planning: which texts may be sent, and which go together in one request. Pure functions."""
