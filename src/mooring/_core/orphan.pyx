"""What a process asks of the kernel and of the C library.

To end soon after its parent, whatever it is doing then:
A worker can be stuck in a handler, or in C code that holds the interpreter, when the supervisor dies; it would then see
neither the end of its child socket nor a Python signal handler run. So the kernel's death signal is caught by a C
function that starts the alarm clock, and SIGALRM, left at its default, ends the process when the grace is over. Whoever
can will have left in good order before that.

To end at the latest in some seconds, though the interpreter is being taken down, or waits in C code: `exit_after`, a
thread without any Python in it. A signal would not do: its handler may be the application's, and goes with the
interpreter.

Whether there are watches of files left, of which a user has so many in all.
"""

cdef extern from *:
    """
    #include <errno.h>
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


cdef extern from *:
    """
    #include <pthread.h>
    #include <stdint.h>
    #include <time.h>

    static struct timespec mooring_left;

    static void *mooring_last_thread(void *code)
    {
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &mooring_left, &mooring_left) == EINTR)
            ;
        _exit((int) (intptr_t) code);
    }

    static int mooring_exit_after(double seconds, int code)
    {
        sigset_t all, before;
        pthread_t thread;
        int failed;

        mooring_left.tv_sec = (time_t) seconds;
        mooring_left.tv_nsec = (long) ((seconds - (double) mooring_left.tv_sec) * 1e9);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);    /* signals are for the others */
        failed = pthread_create(&thread, NULL, mooring_last_thread, (void *) (intptr_t) code);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (!failed)
            pthread_detach(thread);
        return failed;
    }
    """
    int mooring_exit_after(double seconds, int code) nogil

cdef extern from *:
    """
    #include <sys/inotify.h>

    static int mooring_has_watches(const char *path)
    {
        int watches = inotify_init1(IN_CLOEXEC), left;

        if (watches < 0)
            return 1;
        left = inotify_add_watch(watches, path, IN_DELETE_SELF) >= 0 || (errno != ENOSPC && errno != ENOMEM);
        close(watches);
        return left;
    }
    """
    bint mooring_has_watches(const char* path) nogil


import os


def has_watches(path: str) -> bool:
    """Whether the kernel gives a watch (inotify) for this path; True also if that can't be found out."""
    cdef bytes name = os.fsencode(path)
    cdef const char* text = name
    cdef bint left
    with nogil:
        left = mooring_has_watches(text)
    return left


def exit_after(seconds: float, code: int) -> None:
    """This process ends with `code` so many seconds from now, whatever it does then. Once per process."""
    mooring_exit_after(max(0.0, min(<double> seconds, 1e9)), code)       # no thread: its parent will have to do it


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
