"""What pages, API and command line read: queries that change nothing."""
