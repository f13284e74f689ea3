"""The stages of a run: what imports the training libraries. Started by name, never imported by the front."""
