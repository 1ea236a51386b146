"""What a process asks of the kernel and of the C library.

To end soon after its parent, whatever it is doing then:
A worker can be stuck in a handler, or in C code that holds the interpreter, when the supervisor dies; it would then see
neither the end of its control socket nor a Python signal handler run. So the kernel's death signal is caught by a C
function that starts the alarm clock, and SIGALRM, left at its default, ends the process when the grace is over. Whoever
can will have left in good order before that.
"""

cdef extern from *:
    """
    #include <signal.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <unistd.h>

    static volatile unsigned int mooring_grace;

    static void mooring_parent_died(int number)
    {
        (void) number;
        alarm(mooring_grace);
    }

    static int mooring_die_with_parent(unsigned int grace)
    {
        struct sigaction action;

        memset(&action, 0, sizeof(action));
        action.sa_handler = mooring_parent_died;
        action.sa_flags = SA_RESTART;
        mooring_grace = grace ? grace : 1;
        if (sigaction(SIGRTMAX, &action, NULL) < 0)
            return -1;
        return prctl(PR_SET_PDEATHSIG, SIGRTMAX);
    }
    """
    int mooring_die_with_parent(unsigned int grace) nogil

cdef extern from *:
    """
    #include <malloc.h>

    static void mooring_keep_memory(int most, int largest)
    {
    #ifdef __GLIBC__
        mallopt(M_TRIM_THRESHOLD, most);
        mallopt(M_MMAP_THRESHOLD, largest);
    #else
        (void) most;
        (void) largest;
    #endif
    }
    """
    void mooring_keep_memory(int most, int largest) nogil


import os


def keep_freed_memory() -> None:
    """Up to 16 MiB that was freed stays with this process, in pieces of up to 4 MiB.

    The buffers of a connection are freed when they are empty. By default the C library hands large ones back to the
    kernel at once, which then clears every page again for the next message: more than half of the cost of a message
    of 64 KiB.
    """
    mooring_keep_memory(16 << 20, 4 << 20)


def die_with_parent(parent: int, grace: int) -> None:
    """This process ends at the latest `grace` seconds after process `parent`; at once if that is gone already."""
    if mooring_die_with_parent(grace) < 0:
        raise OSError("the kernel refused to tell of the parent's death")
    if os.getppid() != parent:
        os._exit(1)      # it died before we could ask
