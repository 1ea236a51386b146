"""The seam between gateway and worker: events go up, commands go down.

A gateway sees a worker as a `WorkerEnd`, a worker sees a gateway as a `GatewayEnd`. `channel` makes both ends of a
seam between processes, `local` the seam inside one; neither the gateway nor the worker can tell which it has. `policy`
says which worker gets a connection.
"""
