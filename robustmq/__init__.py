"""robustmq: one message platform, many protocols, one log, one worker per core."""
