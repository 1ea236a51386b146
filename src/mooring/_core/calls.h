/* The system calls of each message, without what the C library puts around them.

There they are points at which a thread may be cancelled (pthreads(7)): as soon as a process has a second thread, glibc
switches that on and off again around each call, by two locked instructions. Together they take longer than all else
that a delivery to a subscriber does outside of the kernel, and nobody cancels our threads. syscall(2) is no such point.
*/
#ifndef MOORING_CALLS_H
#define MOORING_CALLS_H

#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* send(2) */
static inline ssize_t mooring_send(int fd, const void *data, size_t size, int flags)
{
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}

/* recv(2) */
static inline ssize_t mooring_recv(int fd, void *data, size_t size, int flags)
{
    return syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL);
}

/* epoll_wait(2), which newer architectures have under this name only */
static inline int mooring_epoll_wait(int epoll, struct epoll_event *events, int limit, int timeout)
{
    return (int) syscall(SYS_epoll_pwait, epoll, events, limit, timeout, NULL, (size_t) (_NSIG / 8));
}

/* Three parts, of which any may be empty, in one call, so that what is large need not be copied behind what waits; like
   send(2), it may take less than all. */
static inline ssize_t mooring_send_parts(int fd, const void *first, size_t first_size, const void *second,
                                         size_t second_size, const void *third, size_t third_size)
{
    struct iovec parts[3] = {
        {(void *) first, first_size}, {(void *) second, second_size}, {(void *) third, third_size},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};

    return syscall(SYS_sendmsg, fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

#endif
