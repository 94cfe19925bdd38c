"""Networks and what their outputs mean: layers, memories, distributions, policies, critics."""
