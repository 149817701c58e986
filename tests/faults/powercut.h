/* For powercut.c: which files are followed, and the logs on the side folder. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct bytes { uint64_t offset, old_size, length; };          /* then `length` old bytes */
struct name { char name[256], kept[64]; };                    /* kept: "" nothing, "/" a folder, else a hard link */

static const char *root, *side;
static size_t root_length;

__attribute__((constructor)) static void start(void) {
    root = getenv("POWERCUT_ROOT");
    side = getenv("POWERCUT_SIDE");
    root_length = root ? strlen(root) : 0;
}

static void give_up(const char *why) {
    dprintf(2, "powercut: %s (%s)\n", why, strerror(errno));
    abort();
}

/* The process dies before its nth call from now that changes something whose path contains `part`. */
static long calls_left;
static char counted_part[64];
void powercut_die_before(long nth, const char *part) {
    snprintf(counted_part, sizeof counted_part, "%s", part);
    calls_left = nth;
}

static void crash_point(const char *path) {
    if (calls_left && strstr(path, counted_part) && !__atomic_sub_fetch(&calls_left, 1, __ATOMIC_SEQ_CST))
        kill(getpid(), SIGKILL);
}

static int under_root(const char *path) {
    size_t length = strlen(path);
    if (!root || !side || strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/')) return 0;
    return length < 4 || strcmp(path + length - 4, "-shm");
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static void crash_point_of(int fd) {
    char path[PATH_MAX];
    if (calls_left && path_of(fd, path)) crash_point(path);
}

/* The status of an open file or folder that is under the root; else 0. */
static int followed(int fd, struct stat *status) {
    char path[PATH_MAX];
    int was = errno;
    int is = root && !fstat(fd, status) && (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)) &&
             path_of(fd, path) && under_root(path);
    errno = was;
    return is;
}

static int side_file(const char *format, uint64_t inode) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, format, side, (unsigned long long)inode);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) give_up("the side folder cannot be written");
    return fd;
}

static int lock(const char *format, uint64_t inode) {
    int fd = side_file(format, inode);
    while (syscall(SYS_flock, fd, LOCK_EX) < 0)
        if (errno != EINTR) give_up("no lock");
    return fd;
}

static void unlock(int fd) {
    int was = errno;
    syscall(SYS_close, fd);
    errno = was;
}

static uint64_t whole(int log) {
    uint64_t end = 0;
    return syscall(SYS_pread64, log, &end, sizeof end, 0) == sizeof end ? end : 0;
}

static void set_whole(int log, uint64_t end) {
    if (syscall(SYS_pwrite64, log, &end, sizeof end, 0) != sizeof end) give_up("the side folder is full");
}

static void append(int log, const void *head, size_t size, const void *tail, size_t length) {
    uint64_t end = whole(log), at = end + sizeof end;
    if (syscall(SYS_pwrite64, log, head, size, at) != (ssize_t)size ||
        (length && syscall(SYS_pwrite64, log, tail, length, at + size) != (ssize_t)length))
        give_up("the side folder is full");
    set_whole(log, end + size + length);
}
