/* A power cut for the files under one folder: LD_PRELOAD this, kill -9 the programs, then let powercut.py restore.

   What a disk may lose is kept on a side folder of the same file system, as the way back:
     <inode>.bytes   for every write, truncation and growth of a file: the old size and the old bytes there.
                     fsync or fdatasync of the file empties it.
     <inode>.names   for every create, rename, link, unlink, mkdir and rmdir in a folder: the name, and what it was
                     before: nothing, a folder, or a file, of which kept-* is a hard link. fsync of the folder empties it.
   Both begin with the length of what follows that is whole, so a kill within a record leaves none behind.

   It is as strict as POSIX: a file's fsync makes its bytes safe and not its name; a rename between two folders is
   safe in each when that folder is synced. Each record is written before its operation and both under one flock, of the
   file or of all names: threads and processes may mix. What it cannot follow it forbids (renamed folders, shared
   writable mappings, except of SQLite's *-shm, which no power cut keeps) or refuses so that callers fall back to
   write (sendfile, copy_file_range). It does not see what stdio writes; Python and SQLite do not use stdio.

   POWERCUT_ROOT, POWERCUT_SIDE: the two folders, without symbolic links. POWERCUT_IGNORE_FSYNC: "folders" or "all" are
   never made safe, as on a disk that lies: with it a test of durability must fail.

   System calls are made directly, because the functions here have their names. x86-64 and AArch64 Linux. */

#include "powercut.h"

/* ---- bytes ---- */

/* Notes what [offset, offset + length) and the size were; returns the log, locked until the operation is done. */
static int note_bytes(int fd, const struct stat *seen, off_t offset, size_t length) {
    struct stat now;
    int log = lock("%s/%llu.bytes", seen->st_ino);
    fstat(fd, &now);
    struct bytes head = {offset, now.st_size, 0};
    char *old = NULL;
    if (offset < now.st_size && length) {
        head.length = (off_t)length < now.st_size - offset ? length : (size_t)(now.st_size - offset);
        old = malloc(head.length);
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t got = syscall(SYS_pread64, fd, old, head.length, offset);
        if (got < 0) { /* opened to write only */
            int readable = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
            got = syscall(SYS_pread64, readable, old, head.length, offset);
            syscall(SYS_close, readable);
        }
        if (got != (ssize_t)head.length) give_up("the old bytes cannot be read");
    }
    append(log, &head, sizeof head, old, head.length);
    free(old);
    return log;
}

static off_t position(int fd, const struct stat *status) {
    return fcntl(fd, F_GETFL) & O_APPEND ? status->st_size : (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
}

#define NOTING(fd, offset, length, call)                                                                               \
    do {                                                                                                               \
        struct stat status;                                                                                            \
        if (!followed(fd, &status)) return call;                                                                       \
        crash_point_of(fd);                                                                                            \
        int log = note_bytes(fd, &status, offset, length);                                                             \
        ssize_t result = call;                                                                                         \
        unlock(log);                                                                                                   \
        return result;                                                                                                 \
    } while (0)

static size_t total(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    return length;
}

ssize_t write(int fd, const void *from, size_t n) { NOTING(fd, position(fd, &status), n, syscall(SYS_write, fd, from, n)); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) { NOTING(fd, at, n, syscall(SYS_pwrite64, fd, from, n, at)); }
ssize_t writev(int fd, const struct iovec *parts, int count) {
    NOTING(fd, position(fd, &status), total(parts, count), syscall(SYS_writev, fd, parts, count));
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    NOTING(fd, at, total(parts, count), syscall(SYS_pwritev, fd, parts, count, at, 0));
}
int ftruncate(int fd, off_t size) {
    NOTING(fd, size, status.st_size > size ? status.st_size - size : 0, syscall(SYS_ftruncate, fd, size));
}
int fallocate(int fd, int mode, off_t at, off_t n) {
    if (mode & ~FALLOC_FL_KEEP_SIZE) { errno = EOPNOTSUPP; return -1; }
    NOTING(fd, at, 0, syscall(SYS_fallocate, fd, mode, at, n));
}
int posix_fallocate(int fd, off_t at, off_t n) { return fallocate(fd, 0, at, n) ? errno : 0; }

ssize_t sendfile(int to, int from, off_t *at, size_t n) {
    struct stat status;
    if (followed(to, &status)) { errno = EINVAL; return -1; }
    return syscall(SYS_sendfile, to, from, at, n);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t n, unsigned flags) {
    struct stat status;
    if (followed(to, &status)) { errno = EXDEV; return -1; }
    return syscall(SYS_copy_file_range, from, at, to, there, n, flags);
}
void *mmap(void *where, size_t n, int protection, int flags, int fd, off_t at) {
    struct stat status;
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && followed(fd, &status))
        give_up("a shared writable mapping cannot be followed");
    return (void *)syscall(SYS_mmap, where, n, protection, flags, fd, at);
}

/* off_t has 64 bits on these machines */
#define SAME(name64, name) extern __typeof__(name) name64 __attribute__((alias(#name)))
SAME(pwrite64, pwrite); SAME(pwritev64, pwritev); SAME(ftruncate64, ftruncate); SAME(fallocate64, fallocate);
SAME(posix_fallocate64, posix_fallocate); SAME(sendfile64, sendfile); SAME(mmap64, mmap);

/* ---- names ---- */

struct entry { char folder[PATH_MAX], path[PATH_MAX]; const char *name; };

/* Where a path leads; 0 when its folder is not under the root. */
static int entry_of(int at, const char *path, struct entry *entry) {
    char full[2 * PATH_MAX], base[PATH_MAX];
    if (!root || !path || !*path) return 0;
    if (*path == '/') snprintf(full, sizeof full, "%s", path);
    else {
        if (at == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of(at, base)) return 0;
        snprintf(full, sizeof full, "%s/%s", base, path);
    }
    for (size_t end = strlen(full); end > 1 && full[end - 1] == '/'; end--) full[end - 1] = 0;
    char *last = strrchr(full, '/');
    *last = 0;
    int was = errno, known = realpath(*full ? full : "/", entry->folder) != NULL;
    errno = was;
    if (!known) return 0;
    snprintf(entry->path, sizeof entry->path, "%.*s/%.255s", PATH_MAX - 300, entry->folder, last + 1);
    entry->name = strrchr(entry->path, '/') + 1;
    return under_root(entry->folder) && under_root(entry->path);
}

/* Notes what a name was. The lock of all names is held. */
static void note_name(const struct entry *entry) {
    static __thread unsigned counter;
    struct stat folder, file;
    struct name record = {{0}, {0}};
    if (stat(entry->folder, &folder)) give_up("a folder has gone");
    strncpy(record.name, entry->name, sizeof record.name - 1);
    if (!lstat(entry->path, &file)) {
        if (S_ISDIR(file.st_mode)) strcpy(record.kept, "/");
        else {
            char kept[PATH_MAX];
            snprintf(record.kept, sizeof record.kept, "kept-%d-%ld-%u", getpid(), (long)syscall(SYS_gettid), counter++);
            snprintf(kept, sizeof kept, "%s/%s", side, record.kept);
            if (syscall(SYS_linkat, AT_FDCWD, entry->path, AT_FDCWD, kept, 0)) give_up("the old file cannot be kept");
        }
    }
    int log = side_file("%s/%llu.names", folder.st_ino);
    append(log, &record, sizeof record, NULL, 0);
    unlock(log);
}

/* A new file or folder starts with nothing to undo, whatever its inode's number stood for before. */
static void forget(const char *path) {
    struct stat status;
    if (lstat(path, &status)) return;
    int bytes = lock("%s/%llu.bytes", status.st_ino), names = side_file("%s/%llu.names", status.st_ino);
    set_whole(bytes, 0);
    set_whole(names, 0);
    unlock(names);
    unlock(bytes);
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
    struct entry entry;
    struct stat before;
    int creates = (flags & O_CREAT) && (flags & O_TMPFILE) != O_TMPFILE, result;
    if (!(creates || flags & O_TRUNC) || !entry_of(at, path, &entry)) return syscall(SYS_openat, at, path, flags, mode);
    crash_point(entry.path);
    int names = lock("%s/names.lock", 0), is_new = lstat(entry.path, &before) != 0;
    if (is_new && creates) note_name(&entry);
    result = syscall(SYS_openat, at, path, flags & ~O_TRUNC, mode);
    if (result >= 0 && is_new) forget(entry.path);
    unlock(names);
    if (result >= 0 && flags & O_TRUNC && ftruncate(result, 0)) give_up("a file cannot be emptied");
    return result;
}

#define OPENING(name, at, parameters)                                                                                  \
    int name parameters {                                                                                              \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                      \
        va_end(rest);                                                                                                  \
        return open_at(at, path, flags, mode);                                                                         \
    }
OPENING(open, AT_FDCWD, (const char *path, int flags, ...))
OPENING(openat, at, (int at, const char *path, int flags, ...))
SAME(open64, open); SAME(openat64, openat);
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* One or two names change by one call. */
static int changing(const struct entry *one, const struct entry *other, long number, long a, long b, long c, long d, long e) {
    crash_point(one ? one->path : other->path);
    int names = lock("%s/names.lock", 0);
    if (one) note_name(one);
    if (other) note_name(other);
    int result = syscall(number, a, b, c, d, e);
    if (!result && number == SYS_mkdirat) forget(one->path);
    unlock(names);
    return result;
}

int mkdirat(int at, const char *path, mode_t mode) {
    struct entry entry, *known = entry_of(at, path, &entry) ? &entry : NULL;
    if (!known) return syscall(SYS_mkdirat, at, path, mode);
    return changing(known, NULL, SYS_mkdirat, at, (long)path, mode, 0, 0);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
int unlinkat(int at, const char *path, int flags) {
    struct entry entry;
    struct stat status;
    if (!entry_of(at, path, &entry) || lstat(entry.path, &status)) return syscall(SYS_unlinkat, at, path, flags);
    return changing(&entry, NULL, SYS_unlinkat, at, (long)path, flags, 0, 0);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int renameat2(int at, const char *path, int to, const char *target, unsigned flags) {
    struct entry from, into;
    struct stat status;
    struct entry *known = entry_of(at, path, &from) ? &from : NULL, *other = entry_of(to, target, &into) ? &into : NULL;
    if (!known && !other) return syscall(SYS_renameat2, at, path, to, target, flags);
    if (known && !lstat(from.path, &status) && S_ISDIR(status.st_mode)) give_up("a renamed folder cannot be followed");
    return changing(known, other, SYS_renameat2, at, (long)path, to, (long)target, flags);
}
int renameat(int at, const char *path, int to, const char *target) { return renameat2(at, path, to, target, 0); }
int rename(const char *path, const char *target) { return renameat2(AT_FDCWD, path, AT_FDCWD, target, 0); }
int linkat(int at, const char *path, int to, const char *target, int flags) {
    struct entry into;
    if (!entry_of(to, target, &into)) return syscall(SYS_linkat, at, path, to, target, flags);
    return changing(&into, NULL, SYS_linkat, at, (long)path, to, (long)target, flags);
}
int link(const char *path, const char *target) { return linkat(AT_FDCWD, path, AT_FDCWD, target, 0); }
int symlinkat(const char *path, int to, const char *target) {
    struct entry into;
    if (!entry_of(to, target, &into)) return syscall(SYS_symlinkat, path, to, target);
    return changing(&into, NULL, SYS_symlinkat, (long)path, to, (long)target, 0, 0);
}
int symlink(const char *path, const char *target) { return symlinkat(path, AT_FDCWD, target); }

/* ---- made safe ---- */

static int safe(int fd, long number) {
    const char *ignored = getenv("POWERCUT_IGNORE_FSYNC");
    struct stat status;
    if (!followed(fd, &status)) return syscall(number, fd);
    int folder = S_ISDIR(status.st_mode);
    crash_point_of(fd);
    if (ignored && (!strcmp(ignored, "all") || (folder && !strcmp(ignored, "folders")))) return 0;
    int held = folder ? lock("%s/names.lock", 0) : lock("%s/%llu.bytes", status.st_ino), result = syscall(number, fd);
    int log = folder ? side_file("%s/%llu.names", status.st_ino) : held;
    if (!result) {
        struct name record;
        uint64_t end = folder ? whole(log) : 0;
        set_whole(log, 0);
        for (uint64_t at = sizeof end; at < sizeof end + end; at += sizeof record) {
            char kept[PATH_MAX];
            if (syscall(SYS_pread64, log, &record, sizeof record, at) != sizeof record || record.kept[0] != 'k') continue;
            snprintf(kept, sizeof kept, "%s/%s", side, record.kept);
            syscall(SYS_unlinkat, AT_FDCWD, kept, 0);
        }
    }
    if (folder) unlock(log);
    unlock(held);
    return result;
}
int fsync(int fd) { return safe(fd, SYS_fsync); }
int fdatasync(int fd) { return safe(fd, SYS_fdatasync); }
