"""What answers the requests, one module for each area of the protocol."""
