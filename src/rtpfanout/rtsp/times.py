"""How long the door waits for what, in seconds. Read where they are used, so that tests can change
them."""

FIRST_SECONDS = 10.0
"""From the connection until a first request is whole."""
IDLE_SECONDS = 60.0
"""Between requests of who plays nothing."""
DESCRIBE_SECONDS = 5.0
"""That a DESCRIBE waits for packets which tell what a session carries."""
TIMEOUT_SECONDS = 60
"""Without a sign of life a client's packets end after so long; it is told."""
LATE_SECONDS = 5
"""Beyond that, for the way of the sign."""
RENEW_SECONDS = 10.0
"""Between two looks at a playback's signs of life."""
