"""Outside hands: what other programs on the same machine can ask of a server that runs, through its control socket."""
