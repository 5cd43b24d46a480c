/* Injects faults below Python, and records which files a process changes. Counts the calls that change files under one
   folder, and makes one of them, or all calls from that one on, fail, write less, or kill the process group. Load it
   with LD_PRELOAD; it does nothing until fault_arm or fault_record is called. Its state is in shared memory, so that
   forked processes count together; after fault_share it is in a file, which other processes find by FAULT_STATE. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, KILL_BEFORE, KILL_AFTER, TORN, ERROR, SHORT, FULL };
enum { WRITE = 1, FSYNC = 2, RENAME = 4, CREATE = 8, UNLINK = 16, MKDIR = 32, CHANGE = 64 };

#define PATH_SIZE 4096
typedef struct {
    char root[PATH_SIZE], record[PATH_SIZE];
    int mask, kind, code;
    long at, times, count;
} State;
static State *state;

static void map_state(const char *path) { /* NULL: memory that only forked processes share */
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (path && syscall(SYS_ftruncate, fd, sizeof(State))) abort();
    state = mmap(NULL, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED | (path ? 0 : MAP_ANONYMOUS), fd, 0);
    if (state == MAP_FAILED) abort();
    if (path) syscall(SYS_close, fd);
}

void fault_share(const char *path) { map_state(path); }

void fault_arm(const char *folder, int calls, int what, int error, long first, long how_many) {
    if (!state) map_state(NULL);
    snprintf(state->root, PATH_SIZE, "%s", folder);
    state->mask = calls, state->kind = what, state->code = error;
    state->at = first, state->times = how_many, state->count = 0;
}

void fault_record(const char *path) {
    if (!state) map_state(NULL);
    snprintf(state->record, PATH_SIZE, "%s", path);
}

/* In a process that is started with the library: goes on as FAULT_STATE says, or records to FAULT_RECORD. */
__attribute__((constructor)) static void attach(void) {
    if (getenv("FAULT_STATE")) map_state(getenv("FAULT_STATE"));
    if (getenv("FAULT_RECORD")) fault_record(getenv("FAULT_RECORD"));
}

long fault_count(void) { return state ? state->count : 0; }

/* The path of `path` relative to the folder `at`, or of the descriptor `at` if `path` is NULL, in `text`. */
static void absolute(char *text, int at, const char *path) {
    char link[64];
    ssize_t size = 0;
    *text = 0;
    if (path && *path == '/') { snprintf(text, PATH_SIZE, "%s", path); return; }
    if (at == AT_FDCWD) {
        if (!getcwd(text, PATH_SIZE)) return;
        size = strlen(text);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        size = readlink(link, text, PATH_SIZE - 1);
        if (size < 0) return;
        text[size] = 0;
    }
    if (path) snprintf(text + size, PATH_SIZE - size, "/%s", path);
}

static void die(void) { kill(0, SIGKILL); for (;;) pause(); }

/* Records and counts a call on a file; returns the fault that it suffers, usually NONE. */
static int next_fault(int call, int at, const char *path) {
    char text[PATH_SIZE];
    int saved = errno;
    if (!state || (!state->root[0] && !state->record[0])) return NONE;
    absolute(text, at, path);
    int changes = call != FSYNC && !(call == MKDIR && !syscall(SYS_faccessat, AT_FDCWD, text, F_OK, 0));
    if (state->record[0] && text[0] == '/' && changes) {
        char line[PATH_SIZE + 16];
        int size = snprintf(line, sizeof line, "%d %s\n", call, text);
        int fd = syscall(SYS_openat, AT_FDCWD, state->record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (syscall(SYS_write, fd, line, size) != size) abort();
        syscall(SYS_close, fd);
    }
    errno = saved;
    if (!state->root[0] || !(state->mask & call) || strncmp(text, state->root, strlen(state->root))) return NONE;
    long count = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    if (state->kind == NONE || count < state->at || count >= state->at + state->times) return NONE;
    if (state->kind == FULL && count > state->at) return ERROR;
    if (call == UNLINK && state->code == ENOSPC && state->times > 1) return NONE; /* a full disk still removes files */
    if (state->kind == KILL_BEFORE || (state->kind == TORN && call != WRITE)) die();
    return state->kind;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(failed) if (injected == ERROR || injected == FULL) { errno = state->code; return failed; }
#define FINISH if (injected == KILL_AFTER) die(); return result;

/* SIMPLE(kind of call, folder, path, type, value for an error, the real call) */
#define SIMPLE(call, at, path, type, failed, real_call)                                  \
    int injected = next_fault(call, at, path);                                           \
    FAIL(failed)                                                                         \
    type result = real_call;                                                             \
    FINISH
#define INT(call, at, path, real_call) SIMPLE(call, at, path, int, -1, real_call)

int fsync(int fd) { INT(FSYNC, fd, NULL, REAL(fsync)(fd)) }
int fdatasync(int fd) { INT(FSYNC, fd, NULL, REAL(fdatasync)(fd)) }
int rename(const char *from, const char *to) { INT(RENAME, AT_FDCWD, to, REAL(rename)(from, to)) }
int renameat(int at, const char *from, int into, const char *to) { INT(RENAME, into, to, REAL(renameat)(at, from, into, to)) }
int renameat2(int at, const char *from, int into, const char *to, unsigned flags) { INT(RENAME, into, to, REAL(renameat2)(at, from, into, to, flags)) }
int unlink(const char *path) { INT(UNLINK, AT_FDCWD, path, REAL(unlink)(path)) }
int unlinkat(int at, const char *path, int flags) { INT(UNLINK, at, path, REAL(unlinkat)(at, path, flags)) }
int rmdir(const char *path) { INT(UNLINK, AT_FDCWD, path, REAL(rmdir)(path)) }
int remove(const char *path) { INT(UNLINK, AT_FDCWD, path, REAL(remove)(path)) }
int mkdir(const char *path, mode_t mode) { INT(MKDIR, AT_FDCWD, path, REAL(mkdir)(path, mode)) }
int mkdirat(int at, const char *path, mode_t mode) { INT(MKDIR, at, path, REAL(mkdirat)(at, path, mode)) }
char *mkdtemp(char *path) { SIMPLE(MKDIR, AT_FDCWD, path, char *, NULL, REAL(mkdtemp)(path)) }
int link(const char *from, const char *to) { INT(MKDIR, AT_FDCWD, to, REAL(link)(from, to)) }
int linkat(int at, const char *from, int into, const char *to, int flags) { INT(MKDIR, into, to, REAL(linkat)(at, from, into, to, flags)) }
int symlink(const char *from, const char *to) { INT(MKDIR, AT_FDCWD, to, REAL(symlink)(from, to)) }
int symlinkat(const char *from, int into, const char *to) { INT(MKDIR, into, to, REAL(symlinkat)(from, into, to)) }
int mkfifo(const char *path, mode_t mode) { INT(MKDIR, AT_FDCWD, path, REAL(mkfifo)(path, mode)) }
int chmod(const char *path, mode_t mode) { INT(CHANGE, AT_FDCWD, path, REAL(chmod)(path, mode)) }
int fchmod(int fd, mode_t mode) { INT(CHANGE, fd, NULL, REAL(fchmod)(fd, mode)) }
int fchmodat(int at, const char *path, mode_t mode, int flags) { INT(CHANGE, at, path, REAL(fchmodat)(at, path, mode, flags)) }
int chown(const char *path, uid_t user, gid_t group) { INT(CHANGE, AT_FDCWD, path, REAL(chown)(path, user, group)) }
int truncate(const char *path, off_t size) { INT(CHANGE, AT_FDCWD, path, REAL(truncate)(path, size)) }
int truncate64(const char *path, off64_t size) { INT(CHANGE, AT_FDCWD, path, REAL(truncate64)(path, size)) }
int ftruncate(int fd, off_t size) { INT(CHANGE, fd, NULL, REAL(ftruncate)(fd, size)) }
int ftruncate64(int fd, off64_t size) { INT(CHANGE, fd, NULL, REAL(ftruncate64)(fd, size)) }
int utimensat(int at, const char *path, const struct timespec times[2], int flags) { INT(CHANGE, at, path, REAL(utimensat)(at, path, times, flags)) }

static int opens_for_writing(int flags) { return (flags & O_CREAT) || (flags & O_ACCMODE) != O_RDONLY; }
static int has_mode(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

#define OPEN(name, at, parameters, arguments)                                            \
    int name(parameters int flags, ...) {                                                \
        va_list rest;                                                                    \
        va_start(rest, flags);                                                           \
        int mode = has_mode(flags) ? va_arg(rest, int) : 0;                              \
        va_end(rest);                                                                    \
        if (!opens_for_writing(flags)) return REAL(name)(arguments flags, mode);         \
        INT(CREATE, at, path, REAL(name)(arguments flags, mode))                         \
    }
#define COMMA ,
OPEN(open, AT_FDCWD, const char *path COMMA, path COMMA)
OPEN(open64, AT_FDCWD, const char *path COMMA, path COMMA)
OPEN(openat, at, int at COMMA const char *path COMMA, at COMMA path COMMA)
OPEN(openat64, at, int at COMMA const char *path COMMA, at COMMA path COMMA)
int creat(const char *path, mode_t mode) { INT(CREATE, AT_FDCWD, path, REAL(creat)(path, mode)) }
int creat64(const char *path, mode_t mode) { INT(CREATE, AT_FDCWD, path, REAL(creat64)(path, mode)) }

#define FOPEN(name)                                                                      \
    FILE *name(const char *path, const char *mode) {                                     \
        if (!strpbrk(mode, "wa+")) return REAL(name)(path, mode);                        \
        SIMPLE(CREATE, AT_FDCWD, path, FILE *, NULL, REAL(name)(path, mode))             \
    }
FOPEN(fopen)
FOPEN(fopen64)

#define WRITING(real_call)                                                               \
    int injected = next_fault(WRITE, fd, NULL);                                          \
    if (injected == ERROR) { errno = state->code; return -1; }                           \
    if ((injected == TORN || injected == SHORT || injected == FULL) && size > 1) size /= 2; \
    ssize_t result = real_call;                                                          \
    if (injected == KILL_AFTER || injected == TORN) die();                               \
    return result;

ssize_t write(int fd, const void *data, size_t size) { WRITING(REAL(write)(fd, data, size)) }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { WRITING(REAL(pwrite)(fd, data, size, offset)) }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { WRITING(REAL(pwrite64)(fd, data, size, offset)) }
ssize_t sendfile(int fd, int from, off_t *offset, size_t size) { WRITING(REAL(sendfile)(fd, from, offset, size)) }
ssize_t sendfile64(int fd, int from, off64_t *offset, size_t size) { WRITING(REAL(sendfile64)(fd, from, offset, size)) }
ssize_t writev(int fd, const struct iovec *parts, int size) { WRITING(REAL(writev)(fd, parts, size)) }
