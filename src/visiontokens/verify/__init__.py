"""Claims of the papers -> PASS, FAIL or NOT RUN, from the results of one scale."""
