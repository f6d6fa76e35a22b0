/* A disk that fails or is watched, between a process and libc (LD_PRELOAD).
 *
 * Looks at calls that concern files below one folder. `disk_fail` makes the n-th of them fail;
 * `disk_watch` writes all that changes anything to a log, data included, from which a power cut at any
 * moment can be put together. Until one of the two is called every call goes through. One thread at a time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_FILES = 4096, SHORT_WRITE = -1 };
enum { READS = 1, WRITES = 2, NAMES = 4, SYNCS = 8 };

static char root[PATH_MAX];
static char *paths[MOST_FILES]; /* of open files below the root */
static int log_file = -1, kinds, failure, lasting;
static long fails_at, calls, calls_by_kind[16];

#define REAL(name) ((__typeof__(&name))find_real(#name))

static void *find_real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* The absolute path, if it lies below the root. */
static const char *resolve(int folder, const char *path, char *whole) {
    char base[PATH_MAX] = "";
    if (!*root)
        return NULL;
    if (path[0] != '/') {
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base))
                return NULL;
        } else if (folder >= 0 && folder < MOST_FILES && paths[folder])
            snprintf(base, sizeof base, "%s", paths[folder]);
        else
            return NULL;
    }
    if (snprintf(whole, PATH_MAX, "%s%s%s", base, *base ? "/" : "", path) >= PATH_MAX)
        return NULL;
    size_t length = strlen(root);
    return !strncmp(whole, root, length) && (whole[length] == '/' || !whole[length]) ? whole : NULL;
}

static const char *find_path(int file) { return file >= 0 && file < MOST_FILES ? paths[file] : NULL; }

static void note(const void *data, size_t size) {
    for (const char *at = data; log_file >= 0 && size;) {
        ssize_t done = REAL(write)(log_file, at, size);
        if (done <= 0)
            abort();
        at += done;
        size -= (size_t)done;
    }
}

/* A record: its words, each ended by a zero byte, and a newline; data may follow. */
static void note_words(const char *first, ...) {
    va_list more;
    va_start(more, first);
    for (const char *word = first; word; word = va_arg(more, const char *))
        note(word, strlen(word) + 1);
    va_end(more);
    note("\n", 1);
}

static const char *print_number(char *text, long long number) {
    snprintf(text, 24, "%lld", number);
    return text;
}

/* Whether this call is to fail; SHORT_WRITE is left to `write`. */
static int is_failing(int kind) {
    if (!failure || !(kind & kinds))
        return 0;
    calls++;
    calls_by_kind[kind]++;
    if (calls != fails_at && !(lasting && calls > fails_at))
        return 0;
    if (failure != SHORT_WRITE)
        errno = failure;
    return 1;
}

/* From here on, the n-th call of these kinds fails with `error`, and all after it if it lasts. */
void disk_fail(const char *folder, long n, int which, int error, int lasts) {
    snprintf(root, sizeof root, "%s", folder);
    fails_at = n;
    kinds = which;
    failure = error;
    lasting = lasts;
    calls = 0;
}

/* Calls of a kind so far that could have failed. */
long disk_calls(int kind) { return calls_by_kind[kind]; }

void disk_watch(const char *folder, const char *log) {
    log_file = REAL(open)(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    snprintf(root, sizeof root, "%s", folder);
}

/* What the process believes to be on disk by now, among the records. */
void disk_mark(const char *text) { note_words("mark", text, NULL); }

static int open_it(int folder, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX], number[24], word[24];
    const char *name = resolve(folder, path, whole);
    if (!name)
        return REAL(openat)(folder, path, flags, mode);
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    if (is_failing(writes ? NAMES : READS) && failure != SHORT_WRITE)
        return -1;
    struct stat facts;
    int known = !lstat(name, &facts);
    int file = REAL(openat)(folder, path, flags, mode);
    if (file < 0 || file >= MOST_FILES)
        return file;
    free(paths[file]);
    paths[file] = strdup(name);
    if (!known)
        note_words("create", name, NULL);
    note_words("open", print_number(number, file), name, NULL);
    if (known && flags & O_TRUNC && facts.st_size)
        note_words("truncate", number, print_number(word, 0), NULL);
    return file;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_it(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_it(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    if (!*root)
        return REAL(openat)(folder, path, flags, mode);
    return open_it(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) __attribute__((alias("openat")));

int close(int file) {
    if (find_path(file)) {
        char number[24];
        note_words("close", print_number(number, file), NULL);
        free(paths[file]);
        paths[file] = NULL;
    }
    return REAL(close)(file);
}

ssize_t read(int file, void *data, size_t size) {
    if (find_path(file) && is_failing(READS))
        return -1;
    return REAL(read)(file, data, size);
}

ssize_t write(int file, const void *data, size_t size) {
    if (!find_path(file))
        return REAL(write)(file, data, size);
    if (is_failing(WRITES)) {
        if (failure != SHORT_WRITE)
            return -1;
        size = (size + 1) / 2;
    }
    ssize_t done = REAL(write)(file, data, size);
    if (done > 0) {
        char number[24], offset[24], count[24];
        print_number(offset, lseek(file, 0, SEEK_CUR) - done);
        note_words("write", print_number(number, file), offset, print_number(count, done), NULL);
        note(data, (size_t)done);
    }
    return done;
}

static int cut(int file, off_t length, __typeof__(&ftruncate) real) {
    if (!find_path(file))
        return real(file, length);
    if (is_failing(WRITES) && failure != SHORT_WRITE)
        return -1;
    int result = real(file, length);
    char number[24], word[24];
    if (!result)
        note_words("truncate", print_number(number, file), print_number(word, length), NULL);
    return result;
}

int ftruncate(int file, off_t length) { return cut(file, length, REAL(ftruncate)); }

int ftruncate64(int file, off_t length) { return cut(file, length, REAL(ftruncate)); }

static int sync_it(int file, __typeof__(&fsync) real) {
    if (!find_path(file))
        return real(file);
    if (is_failing(SYNCS) && failure != SHORT_WRITE)
        return -1;
    int result = real(file);
    char number[24];
    if (!result)
        note_words("sync", print_number(number, file), NULL);
    return result;
}

int fsync(int file) { return sync_it(file, REAL(fsync)); }

int fdatasync(int file) { return sync_it(file, REAL(fdatasync)); }

int rename(const char *from, const char *to) {
    char first[PATH_MAX], second[PATH_MAX];
    if (!resolve(AT_FDCWD, from, first) || !resolve(AT_FDCWD, to, second))
        return REAL(rename)(from, to);
    if (is_failing(NAMES) && failure != SHORT_WRITE)
        return -1;
    int result = REAL(rename)(from, to);
    if (!result)
        note_words("rename", first, second, NULL);
    return result;
}

static int change_name(int folder, const char *path, const char *what, int (*real)(int, const char *, int),
                       int argument) {
    char whole[PATH_MAX];
    const char *name = resolve(folder, path, whole);
    if (!name)
        return real(folder, path, argument);
    if (is_failing(NAMES) && failure != SHORT_WRITE)
        return -1;
    int result = real(folder, path, argument);
    if (!result)
        note_words(what, name, NULL);
    return result;
}

static int real_mkdirat(int folder, const char *path, int mode) {
    return REAL(mkdirat)(folder, path, (mode_t)mode);
}

static int real_unlinkat(int folder, const char *path, int flags) {
    return REAL(unlinkat)(folder, path, flags);
}

int mkdir(const char *path, mode_t mode) {
    return change_name(AT_FDCWD, path, "mkdir", real_mkdirat, (int)mode);
}

int unlink(const char *path) { return change_name(AT_FDCWD, path, "unlink", real_unlinkat, 0); }

int rmdir(const char *path) { return change_name(AT_FDCWD, path, "unlink", real_unlinkat, AT_REMOVEDIR); }

int unlinkat(int folder, const char *path, int flags) {
    return change_name(folder, path, "unlink", real_unlinkat, flags);
}
