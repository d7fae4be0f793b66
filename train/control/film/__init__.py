"""Films of a finished quadruped."""
