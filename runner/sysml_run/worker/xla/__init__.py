"""Training on XLA devices: one process, the weights sharded over every device it sees; torch_xla is imported here."""
