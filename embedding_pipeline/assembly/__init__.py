"""The composition root: settings in, working parts out, in one stated order."""
