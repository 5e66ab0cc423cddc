"""The cost beside every score: tokens per layer, FLOPs, cache bytes, measured latency and peak memory."""
