"""What a gateway knows of a connection at its end. Theory in closed.pyx."""

from mooring._core.hub cimport Hub
from mooring._core.registry cimport Connection, Registry

# The reason as its worker is told it: with the close record behind it, if there is one that it wants.
cdef bytes with_record(Registry registry, Hub hub, Connection* c, int code, bytes reason, int wants)
