"""What each verb of the command does: read its settings, call one function, print what a user waits for.

Libraries that take seconds to load are imported inside the verbs, so that `--help` answers at once.
"""
