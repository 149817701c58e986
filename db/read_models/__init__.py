"""The queries of the pages, the API and the command line; they change nothing."""
