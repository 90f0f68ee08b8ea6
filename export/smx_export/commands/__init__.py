"""The subcommands of ``smx-export``, a module each."""
