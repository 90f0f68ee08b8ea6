"""What several processes need: shares of a batch, votes, sharded classes, and locks on files."""
