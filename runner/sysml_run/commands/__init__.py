"""What each command does, one module each: `run(options) -> exit code`."""
