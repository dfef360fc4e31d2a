"""Mutation testing: small changes of the library, each of which some test should notice."""
