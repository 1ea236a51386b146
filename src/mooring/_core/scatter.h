/* Sending from several places at once, so that what is large need not be copied behind what waits. */
#ifndef MOORING_SCATTER_H
#define MOORING_SCATTER_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* Three parts, of which any may be empty, in one call; like send(2), it may take less than all. */
static inline ssize_t mooring_send_parts(int fd, const void *first, size_t first_size, const void *second,
                                         size_t second_size, const void *third, size_t third_size)
{
    struct iovec parts[3] = {
        {(void *) first, first_size}, {(void *) second, second_size}, {(void *) third, third_size},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};

    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

#endif
