/* Injects faults below Python. Counts the calls that change files under one folder, and makes one of them, or all
   calls from that one on, fail, write less, or kill the process. Load it with LD_PRELOAD; it does nothing until
   fault_arm is called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { NONE, KILL_BEFORE, KILL_AFTER, TORN, ERROR, SHORT, FULL };
enum { WRITE = 1, FSYNC = 2, RENAME = 4, CREATE = 8, UNLINK = 16, MKDIR = 32 };

static char root[4096];
static int mask, kind, code;
static long at, times, count;

void fault_arm(const char *folder, int calls, int what, int error, long first, long how_many) {
    snprintf(root, sizeof root, "%s", folder);
    mask = calls, kind = what, code = error, at = first, times = how_many, count = 0;
}

long fault_count(void) { return count; }

static int in_root(const char *path) {
    return root[0] && path && strncmp(path, root, strlen(root)) == 0;
}

static int fd_in_root(int fd) {
    char link[64], path[4096];
    if (!root[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return in_root(path);
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

/* Counts this call; returns the fault that it suffers, usually NONE. */
static int next_fault(int call, int relevant) {
    if (!relevant || !(mask & call)) return NONE;
    count++;
    if (kind == NONE || count < at || count >= at + times) return NONE;
    if (kind == FULL && count > at) return ERROR;
    if (kind == KILL_BEFORE || (kind == TORN && call != WRITE)) die();
    return kind;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define SIMPLE(call, relevant, real_call)                                                \
    int injected = next_fault(call, relevant);                                           \
    if (injected == ERROR || injected == FULL) { errno = code; return -1; }              \
    int result = real_call;                                                              \
    if (injected == KILL_AFTER) die();                                                   \
    return result;

int fsync(int fd) { SIMPLE(FSYNC, fd_in_root(fd), REAL(fsync)(fd)) }
int fdatasync(int fd) { SIMPLE(FSYNC, fd_in_root(fd), REAL(fdatasync)(fd)) }
int rename(const char *from, const char *to) { SIMPLE(RENAME, in_root(to), REAL(rename)(from, to)) }
int unlink(const char *path) { SIMPLE(UNLINK, in_root(path), REAL(unlink)(path)) }
int mkdir(const char *path, mode_t mode) { SIMPLE(MKDIR, in_root(path), REAL(mkdir)(path, mode)) }

static int mode_of(int flags, va_list rest) { return flags & O_CREAT ? va_arg(rest, int) : 0; }

#define OPEN(name)                                                                       \
    int name(const char *path, int flags, ...) {                                         \
        va_list rest;                                                                    \
        va_start(rest, flags);                                                           \
        int mode = mode_of(flags, rest);                                                 \
        va_end(rest);                                                                    \
        SIMPLE(CREATE, (flags & O_CREAT) && in_root(path), REAL(name)(path, flags, mode)) \
    }
OPEN(open)
OPEN(open64)

#define WRITING(real_call)                                                               \
    int injected = next_fault(WRITE, fd_in_root(fd));                                    \
    if (injected == ERROR) { errno = code; return -1; }                                  \
    if ((injected == TORN || injected == SHORT || injected == FULL) && size > 1) size /= 2; \
    ssize_t result = real_call;                                                          \
    if (injected == KILL_AFTER || injected == TORN) die();                               \
    return result;

ssize_t write(int fd, const void *data, size_t size) { WRITING(REAL(write)(fd, data, size)) }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { WRITING(REAL(pwrite)(fd, data, size, offset)) }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { WRITING(REAL(pwrite64)(fd, data, size, offset)) }
