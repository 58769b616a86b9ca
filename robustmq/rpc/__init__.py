"""The inner RPC between the meta processes of a cluster: streams for Raft, calls for members."""
