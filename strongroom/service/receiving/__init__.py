"""From a sender to the intake: who it is, what it may take, how long it may take, what is recorded of it."""
