/* Preloaded into a server, makes system calls and allocations fail as often as a shared page says; see faults.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Every `every`-th call fails with `error` (0: none does), at most `left` times (-1: any number). Counted: `calls`, `hits`. */
struct fault { int64_t every, error, left, calls, hits; };

enum { ACCEPT, SEND, RECV, WAIT, WATCH, ALLOCATE, FORK, THREAD, MEMFD, NOTIFIER, NOTIFY, KINDS };

struct control {
    int64_t pid;        /* only this process; 0: each */
    int64_t domain;     /* send and recv of this kind of socket only; 0: any */
    int64_t most;       /* bytes that one send takes; 0: any number */
    int64_t everywhere; /* whether allocations of other code than mooring's may fail, too */
    int64_t step;       /* seconds by which the wall clock is wrong */
    int64_t row;        /* clients accepted since epoll_wait, and the most that ever were */
    int64_t longest_row;
    struct fault faults[KINDS];
};

static struct control *control;

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MOORING_TEST_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *page;
    if (fd < 0)
        return;
    page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        control = page;
}

static int here(void) { return control && (!control->pid || control->pid == getpid()); }

static int fails(int kind)
{
    struct fault *fault = &control->faults[kind];
    if (!fault->every || (__atomic_add_fetch(&fault->calls, 1, __ATOMIC_RELAXED) % fault->every))
        return 0;
    if (fault->left == 0)
        return 0;
    if (fault->left > 0)
        __atomic_sub_fetch(&fault->left, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&fault->hits, 1, __ATOMIC_RELAXED);
    errno = (int) fault->error;
    return 1;
}

static int meant(int fd)
{
    int domain = 0, saved = errno;
    socklen_t size = sizeof domain;
    if (!here())
        return 0;
    if (!control->domain)
        return 1;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    errno = saved;
    return domain == control->domain;
}

static int is_stream(int fd)
{
    int type = 0, saved = errno;
    socklen_t size = sizeof type;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size);
    errno = saved;
    return type == SOCK_STREAM;
}

/* The function of the C library, looked up at the first call. */
static void *found(void **place, const char *name)
{
    if (!*place)
        *place = dlsym(RTLD_NEXT, name);
    return *place;
}

#define REAL(name) ((__typeof__(real)) found((void **) &real, name))

int accept4(int fd, struct sockaddr *restrict address, socklen_t *restrict size, int flags)
{
    static int (*real)(int, struct sockaddr *, socklen_t *, int);
    if (here() && fails(ACCEPT))
        return -1;
    fd = REAL("accept4")(fd, address, size, flags);
    if (fd >= 0 && here() && ++control->row > control->longest_row)
        control->longest_row = control->row;
    return fd;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, const void *, size_t, int);
    if (meant(fd)) {
        if (fails(SEND))
            return -1;
        if (control->most && size > (size_t) control->most)
            size = control->most;
    }
    return REAL("send")(fd, data, size, flags);
}

/* Streams only: half a child message would be none. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, const struct msghdr *, int);
    struct iovec parts[8];
    struct msghdr cut = *message;
    size_t room = control ? (size_t) control->most : 0;
    if (message->msg_iovlen <= 8 && meant(fd) && is_stream(fd)) {
        if (fails(SEND))
            return -1;
        if (room) {
            cut.msg_iov = parts;
            for (size_t i = 0; i < message->msg_iovlen; i++) {
                parts[i] = message->msg_iov[i];
                if (parts[i].iov_len > room)
                    parts[i].iov_len = room;
                room -= parts[i].iov_len;
            }
        }
    }
    return REAL("sendmsg")(fd, &cut, flags);
}

ssize_t recv(int fd, void *data, size_t size, int flags)
{
    static ssize_t (*real)(int, void *, size_t, int);
    return meant(fd) && fails(RECV) ? -1 : REAL("recv")(fd, data, size, flags);
}

int epoll_wait(int epoll, struct epoll_event *events, int limit, int timeout)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (here())
        control->row = 0;
    return here() && fails(WAIT) ? -1 : REAL("epoll_wait")(epoll, events, limit, timeout);
}

/* What mooring calls without the C library's wrapper, see calls.h. */
long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long one, two, three, four, five, six;
    va_list given;
    va_start(given, number);
    one = va_arg(given, long), two = va_arg(given, long), three = va_arg(given, long);
    four = va_arg(given, long), five = va_arg(given, long), six = va_arg(given, long);
    va_end(given);
    switch (number) {
    case SYS_sendto:
        return send((int) one, (void *) two, three, (int) four);
    case SYS_recvfrom:
        return recv((int) one, (void *) two, three, (int) four);
    case SYS_sendmsg:
        return sendmsg((int) one, (void *) two, (int) three);
    case SYS_epoll_pwait:
        return epoll_wait((int) one, (void *) two, (int) three, (int) four);
    default:
        return REAL("syscall")(number, one, two, three, four, five, six);
    }
}

int epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    static int (*real)(int, int, int, struct epoll_event *);
    return op != EPOLL_CTL_DEL && here() && fails(WATCH) ? -1 : REAL("epoll_ctl")(epoll, op, fd, event);
}

/* ---- what a system has a number of */

pid_t fork(void)
{
    static pid_t (*real)(void);
    return here() && fails(FORK) ? -1 : REAL("fork")();
}

/* One that returns twice can't be wrapped, and fork is as good. */
pid_t vfork(void) { return fork(); }

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*run)(void *), void *restrict argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    return here() && fails(THREAD) ? errno : REAL("pthread_create")(thread, attributes, run, argument);
}

int memfd_create(const char *name, unsigned int flags)
{
    static int (*real)(const char *, unsigned int);
    return here() && fails(MEMFD) ? -1 : REAL("memfd_create")(name, flags);
}

int ftruncate(int fd, off_t size)
{
    static int (*real)(int, off_t);
    return here() && fails(MEMFD) ? -1 : REAL("ftruncate")(fd, size);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int inotify_init1(int flags)
{
    static int (*real)(int);
    return here() && fails(NOTIFIER) ? -1 : REAL("inotify_init1")(flags);
}

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    static int (*real)(int, const char *, uint32_t);
    return here() && fails(NOTIFY) ? -1 : REAL("inotify_add_watch")(fd, path, mask);
}

/* ---- memory */

static int starved(const void *caller)
{
    Dl_info place;
    if (!here() || !control->faults[ALLOCATE].every)
        return 0;
    if (!control->everywhere && !(dladdr(caller, &place) && strstr(place.dli_fname, "/mooring/_core/")))
        return 0;
    return fails(ALLOCATE);
}

void *malloc(size_t size) { return starved(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size)
{
    return starved(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) { return starved(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size); }

/* ---- the wall clock */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    int result = REAL("clock_gettime")(clock, now);
    if (result == 0 && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->step;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    static int (*real)(struct timeval *, void *);
    int result = REAL("gettimeofday")(now, zone);
    if (result == 0 && control)
        now->tv_sec += control->step;
    return result;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
