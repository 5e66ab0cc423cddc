"""The two-stage recipe of LLaVA on the Hugging Face Trainer: exact resume, stage schedules, a record of every run."""
