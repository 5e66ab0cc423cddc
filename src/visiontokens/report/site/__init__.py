"""The static site: every result of one scale as pages that open from a folder, without server or network."""
