"""The compiled core: what runs per packet, per frame, per record, per subscriber, and nothing else."""
