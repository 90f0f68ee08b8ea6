"""What many processes need: shares, votes, sharded classes, and one living process a file."""
