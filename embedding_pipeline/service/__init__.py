"""The flow from texts to vectors: look up, plan, claim, call, settle; in bulk and online."""
